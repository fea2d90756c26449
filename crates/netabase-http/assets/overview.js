// The overview: warnings, figures, the graph, plots, and what this node is.

import { get } from './api.js';
import { byId, copyButton, el, facts, reconcile, setText } from './dom.js';
import { bytes, clock, count, duration, line, visible, words } from './format.js';
import { Graph } from './graph.js';
import { openPeer } from './peers.js';
import { plots } from './plots.js';
import { sizesOf } from './shapes.js';
import { state } from './state.js';

/** A text that begins like a sentence. */
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A text in which what stands between backticks is code. */
const prose = (text) => text.split('`').map((part, at) => (at % 2 ? el('code', {}, part) : part));

function showWarnings(warnings) {
  // Live regions speak when they change, and warnings come with every answer: a warning stays the same element, and
  // a number that grows is none of what is spoken.
  reconcile(byId('warnings'), warnings, ({ kind, reason }) => `${kind} ${reason ?? ''}`,
    ({ kind }) => el('div', { class: 'warning', data: { kind } },
      el('strong', {}), el('span', { class: 'warning-count', 'aria-hidden': 'true' }), el('span', {})),
    (box, { message, what_to_do: whatToDo, count: times }) => {
      const [said, number, todo] = box.children;
      setText(said, sentence(line(message, 300)));
      setText(number, times ? `${count(times)} times` : '');
      if (todo.dataset.shown === whatToDo) return;
      todo.dataset.shown = whatToDo ?? '';
      todo.replaceChildren(...prose(sentence(line(whatToDo ?? '', 400))));
    });
}

function showTiles(status) {
  const tiles = [
    ['Peers', count(status.peers), status.mode ? `${line(status.mode, 20)} mode` : ''],
    ['Records', count(status.records), status.models.length === 1 ? 'of 1 model' : `of ${count(status.models.length)} models`],
    ['On disk', status.disk === null ? '\u2013' : bytes(status.disk), status.disk === null ? 'all in memory' : line(status.backend, 20)],
    ['Refused', count(status.refused), 'records of peers'],
    ['Up', duration(status.uptime), status.started ? `since ${clock(status.started)}` : ''],
  ];
  const list = byId('tiles');
  if (list.children.length !== tiles.length) {
    list.replaceChildren(...tiles.map(([name]) => el('div', { class: 'tile' }, el('dt', {}, name), el('dd', { class: 'figure' }), el('dd', { class: 'muted' }))));
  }
  tiles.forEach(([, figure, below], at) => {
    const [, value, note] = list.children[at].children;
    setText(value, figure);
    setText(note, below);
  });
}

/** The addresses, with the port or the rest after the last colon left whole on narrow screens. */
const addressList = (addresses) => addresses.map((address) => el('div', { class: 'mono wrap' }, visible(address)));

function showNode(status) {
  const list = byId('node');
  const text = JSON.stringify([status.id, status.addresses, status.network, status.mode, status.version]);
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  facts(list, [
    ['Peer id', [el('span', { class: 'mono wrap' }, visible(status.id)), copyButton(status.id, 'the peer id')]],
    ['Network', line(status.network)],
    ['Mode', line(status.mode)],
    ['Listens on', status.addresses.length ? addressList(status.addresses) : 'nothing'],
    ['Version', line(status.version)],
  ]);
}

function showStore(status) {
  const most = Math.max(1, ...status.models.map((model) => model.records));
  byId('store').replaceChildren(
    el('ul', { class: 'bars' }, ...status.models.map((model) => {
      const bar = el('span', { class: 'bar', 'aria-hidden': 'true' });
      bar.style.width = `${Math.max(model.records ? 1 : 0, (model.records / most) * 100)}%`;
      return el('li', {},
        el('a', { href: `#/records/${encodeURIComponent(model.name)}` }, line(model.name, 40)),
        el('span', { class: 'num' }, count(model.records)), bar);
    })),
    factsOf(status.store),
    ...(status.refusals.length
      ? [el('h3', {}, 'Refused, by reason'), factsOf(status.refusals.map(([reason, times]) => [words(line(reason, 60)), count(times)]))]
      : []),
  );
}

/** Asks for the sizes of everything in the database, when somebody wants to know: all of it is read for that. */
function startMeasuring() {
  const [button, answer] = [byId('measure'), byId('measured')];
  button.addEventListener('click', async () => {
    button.disabled = true;
    answer.replaceChildren(el('p', { class: 'muted' }, 'Reading the whole database\u2026'));
    try {
      const measured = sizesOf(await get('/v1/store', { patience: 300_000 }));
      answer.replaceChildren(...measured.flatMap(([title, entries]) =>
        [el('h3', {}, title), factsOf(entries.map(([name, size]) => [line(name, 60), size]))]));
    } catch (error) {
      answer.replaceChildren(el('p', { class: 'problem' }, line(error.message, 400)));
    }
    button.disabled = false;
  });
}

function factsOf(entries) {
  const list = el('dl', { class: 'facts tight' });
  facts(list, entries);
  return list;
}

export function startOverview() {
  startMeasuring();
  const graph = new Graph(byId('overview-graph'), byId('overview-graph-note'), openPeer);
  const show = plots(byId('plots'));
  state.addEventListener('status', () => {
    const { status } = state;
    showWarnings(status.warnings);
    showTiles(status);
    showNode(status);
    showStore(status);
  });
  state.addEventListener('peers', () => state.view === 'overview' && graph.show(state.peers));
  state.addEventListener('view', () => state.view === 'overview' && graph.show(state.peers));
  state.addEventListener('statistics', () => show(state.statistics));
}
