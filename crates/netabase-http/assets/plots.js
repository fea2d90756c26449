// Rates over the last ten minutes, one canvas for each.

import { colour, onColours, sharpen } from './colours.js';
import { el, setText } from './dom.js';
import { bytes, clock } from './format.js';

const rate = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const perSecond = (value) => `${rate.format(value)}/s`;
const bytesPerSecond = (value) => `${bytes(value)}/s`;

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
    if (!this.#data) return;
    const { write, title } = this.#spec;
    const lines = this.#lines();
    const points = this.#data.points;
    const top = nice(Math.max(1, ...lines.flatMap(({ values }) => values)));
    const last = (values) => values.at(-1) ?? 0;
    const text = (at) => lines
      .map(({ label, values }) => `${lines.length > 1 ? `${label} ` : ''}${write(at === null ? last(values) : values[at - (points - values.length)] ?? 0)}`)
      .join(' \u00b7 ');
    const peaks = lines.map(({ label, values }) => `${label}: now ${write(last(values))}, at most ${write(Math.max(0, ...values))}`);
    this.#canvas.setAttribute('aria-label', `${title} per second over ten minutes. ${peaks.join('; ')}.`);

    const fit = sharpen(this.#canvas);
    if (!fit) return;
    const { context: c, width, height } = fit;
    const [bottom, high] = [height - 1.5, 6];
    const x = (at) => (at / Math.max(1, points - 1)) * (width - 2) + 1;
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
      if (values.length === 0) return;
      const first = points - values.length;
      c.beginPath();
      values.forEach((value, at) => (at ? c.lineTo(x(first + at), y(value)) : c.moveTo(x(first), y(value))));
      c.strokeStyle = colour(which === 0 ? 'accent' : 'second');
      c.lineWidth = 1.5;
      c.lineJoin = 'round';
      c.stroke();
      c.lineTo(x(points - 1), bottom);
      c.lineTo(x(first), bottom);
      c.closePath();
      c.globalAlpha = 0.12;
      c.fillStyle = c.strokeStyle;
      c.fill();
      c.globalAlpha = 1;
    });
    c.font = '10px system-ui, sans-serif';
    c.textBaseline = 'top';
    c.fillStyle = colour('muted');
    c.fillText(write(top), 2, high + 2);

    let at = null;
    if (this.#pointer !== null) {
      at = Math.min(points - 1, Math.max(0, Math.round(((this.#pointer - 1) / (width - 2)) * (points - 1))));
      c.strokeStyle = colour('edge');
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(x(at), high);
      c.lineTo(x(at), bottom);
      c.stroke();
    }
    const when = at === null ? '' : ` at ${clock(this.#data.end - (points - 1 - at) * 1000)}`;
    setText(this.#now, text(at) + when);
  }
}

/** Puts the plots into `box`; returns a function that shows new data in them. */
export function plots(box) {
  const all = PLOTS.map((spec) => new Plot(spec));
  box.replaceChildren(...all.map((plot) => plot.element));
  onColours(() => all.forEach((plot) => plot.draw()));
  return (data) => all.forEach((plot) => plot.show(data));
}
