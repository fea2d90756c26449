// Rates over the last ten minutes, one canvas for each.

import { colour, onColours, sharpen } from './colours.js';
import { el, setText } from './dom.js';
import { bytes, clock } from './format.js';
import { SPAN } from './shapes.js';

const rate = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const perSecond = (value) => (Number.isFinite(value) ? `${rate.format(value)}/s` : '\u2013');
const bytesPerSecond = (value) => (Number.isFinite(value) ? `${bytes(value)}/s` : '\u2013');

/** What is plotted: a title, the series of the API with their names, and how values are written. */
const PLOTS = [
  { title: 'Puts', series: [['puts', 'puts']], write: perSecond },
  { title: 'Gets', series: [['gets', 'gets']], write: perSecond },
  { title: 'Sync', series: [['sync', 'records']], write: perSecond },
  { title: 'Traffic', series: [['bytes_in', 'in'], ['bytes_out', 'out']], write: bytesPerSecond },
];

/** The next of 1, 2, 5, 10, ... that is not less. */
function nice(value) {
  const base = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map((step) => step * base).find((step) => step >= value * 0.999) ?? value;
}

/** The positions of values that follow one another without a gap. */
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at > 0 && values[at - 1] !== null && found.length) found.at(-1).push(at);
    else found.push([at]);
  });
  return found;
}

/** The position of the time nearest to `wanted`; -1 if none is within two intervals. */
function nearest(times, wanted, interval) {
  let best = -1;
  let least = 2 * interval;
  times.forEach((time, at) => {
    if (Math.abs(time - wanted) < least) [best, least] = [at, Math.abs(time - wanted)];
  });
  return best;
}

class Plot {
  #spec;
  #canvas = el('canvas', { role: 'img' });
  #now = el('span', { class: 'plot-now' });
  #data = null;
  #pointer = null;

  constructor(spec) {
    this.#spec = spec;
    this.element = el('figure', { class: 'plot' },
      el('figcaption', {}, el('span', { class: 'plot-title' }, spec.title), this.#now), this.#canvas);
    this.#canvas.addEventListener('pointermove', (event) => this.#point(event.offsetX));
    this.#canvas.addEventListener('pointerleave', () => this.#point(null));
    new ResizeObserver(() => this.draw()).observe(this.#canvas);
  }

  show(data) {
    this.#data = data;
    this.draw();
  }

  #point(x) {
    this.#pointer = x;
    this.draw();
  }

  #lines() {
    return this.#spec.series.map(([name, label]) => ({ label, values: this.#data.series[name] ?? [] }));
  }

  draw() {
    if (!this.#data?.times.length) return;
    const { write, title } = this.#spec;
    const lines = this.#lines();
    const { times, interval } = this.#data;
    const end = times.at(-1);
    const top = nice(Math.max(1, ...lines.flatMap(({ values }) => values)));
    const text = (at) => lines
      .map(({ label, values }) => `${lines.length > 1 ? `${label} ` : ''}${write(values[at])}`)
      .join(' \u00b7 ');
    const latest = times.length - 1;
    const peaks = lines.map(({ label, values }) => `${label}: now ${write(values[latest])}, at most ${write(Math.max(0, ...values))}`);
    this.#canvas.setAttribute('aria-label', `${title} per second over ten minutes. ${peaks.join('; ')}.`);

    const fit = sharpen(this.#canvas);
    if (!fit) return;
    const { context: c, width, height } = fit;
    const [bottom, high] = [height - 1.5, 6];
    const x = (time) => (1 - (end - time) / SPAN) * (width - 2) + 1;
    const y = (value) => bottom - (value / top) * (bottom - high);
    c.lineWidth = 1;
    c.strokeStyle = colour('line');
    c.beginPath();
    for (const part of [0, 0.5, 1]) {
      const level = Math.round(y(top * part)) + 0.5;
      c.moveTo(0, level);
      c.lineTo(width, level);
    }
    c.stroke();
    lines.forEach(({ values }, which) => {
      c.strokeStyle = colour(which === 0 ? 'accent' : 'second');
      c.fillStyle = c.strokeStyle;
      c.lineWidth = 1.5;
      c.lineJoin = 'round';
      for (const run of runs(values)) {
        c.beginPath();
        for (const at of run) c.lineTo(x(times[at]), y(values[at]));
        c.stroke();
        c.lineTo(x(times[run.at(-1)]), bottom);
        c.lineTo(x(times[run[0]]), bottom);
        c.closePath();
        c.globalAlpha = 0.12;
        c.fill();
        c.globalAlpha = 1;
      }
    });
    c.font = '10px system-ui, sans-serif';
    c.textBaseline = 'top';
    c.fillStyle = colour('muted');
    c.fillText(write(top), 2, high + 2);

    let pointed = null;
    if (this.#pointer !== null) {
      pointed = Math.min(end, Math.max(end - SPAN, end - (1 - (this.#pointer - 1) / (width - 2)) * SPAN));
      c.strokeStyle = colour('edge');
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(x(pointed), high);
      c.lineTo(x(pointed), bottom);
      c.stroke();
    }
    setText(this.#now, pointed === null ? text(latest) : `${text(nearest(times, pointed, interval))} at ${clock(pointed)}`);
  }
}

/** Puts the plots into `box`; returns a function that shows new data in them. */
export function plots(box) {
  const all = PLOTS.map((spec) => new Plot(spec));
  box.replaceChildren(...all.map((plot) => plot.element));
  onColours(() => all.forEach((plot) => plot.draw()));
  return (data) => all.forEach((plot) => plot.show(data));
}
