// One record in full: its value, who wrote it and when, and on demand who holds it and what happened to it.

import { get, post, recordPath, withTimeout } from './api.js';
import { byId, copyButton, el, facts, setText } from './dom.js';
import { ago, bytes, clock, count, line, shortId, visible, words } from './format.js';
import { healthOf, jsonText, keyText, traceOf } from './shapes.js';
import { LONG_TEXT, textView, valueView } from './value.js';

/** The record that is shown is read again for changes at most this often, in milliseconds. */
const REFRESH_EVERY = 1000;
/** How long a record may take, in milliseconds. */
const PATIENCE = 30_000;

let asked = null;
let controller = null;
/** How often a record was asked for: an answer is shown only if nothing was asked since. */
let turn = 0;
let loading = false;
let again = false;
let lastLoad = 0;
let refreshTimer = 0;

const pathOf = ({ model, key }, below) => recordPath(model, key, below);

function metaView(record) {
  const list = el('dl', { class: 'facts' });
  const time = (at) => `${clock(at, true)} (${ago(at)})`;
  facts(list, [
    ['Model', line(record.model)],
    ['Key', textView(keyText(record.key), { mono: true })],
    ['Author', record.author ? [el('span', { class: 'mono wrap' }, visible(record.author)), copyButton(record.author, 'the author')] : 'not signed'],
    ['Written', record.version?.timestamp ? time(record.version.timestamp) : null],
    ['Version', record.version?.hash ? el('span', { class: 'mono wrap' }, visible(record.version.hash)) : null],
    ['Expires', record.expires ? time(record.expires) : 'never'],
    ['Size', Number.isFinite(record.size) ? `${bytes(record.size)} (${count(record.size)} bytes)` : null],
    ['Origin', record.origin ? line(words(record.origin)) : null],
  ]);
  return list;
}

function jsonView(value) {
  const box = el('details', { class: 'json' }, el('summary', {}, 'JSON'));
  box.addEventListener('toggle', () => {
    if (!box.open || box.children.length > 1) return;
    const text = jsonText(value, 2);
    const body = text.length > LONG_TEXT * 10 ? textView(text, { mono: true }) : el('pre', {}, visible(text));
    box.append(copyButton(text, 'the JSON'), body);
  });
  return box;
}

/** A button that asks the node something and shows the answer below; a second press asks again. */
function question(label, note, ask) {
  const answer = el('div', { class: 'answer', 'aria-live': 'polite' });
  const button = el('button', { type: 'button' }, label);
  button.addEventListener('click', async () => {
    const { signal } = controller;
    button.disabled = true;
    answer.replaceChildren(el('p', { class: 'muted' }, 'Asking\u2026'));
    try {
      const shown = await ask(signal, answer);
      answer.replaceChildren(...[shown].flat());
    } catch (error) {
      if (!signal.aborted) answer.replaceChildren(el('p', { class: 'problem' }, line(error.message, 400)));
    }
    button.disabled = false;
  });
  return el('section', { class: 'question' }, el('div', { class: 'question-head' }, button, el('span', { class: 'muted' }, note)), answer);
}

function healthView(answer) {
  const health = healthOf(answer);
  const summary = health.wanted
    ? `${count(health.current)} of ${count(health.wanted)} holders have the newest version.`
    : 'No peers were found that should hold it.';
  const rows = health.holders.map(({ peer, state, since, reason }) =>
    el('tr', {},
      el('th', { scope: 'row' }, el('a', { class: 'mono', href: `#/peers/${encodeURIComponent(peer)}`, title: visible(peer) }, shortId(visible(peer)))),
      el('td', { class: state === 'current' ? 'good' : 'bad' }, line(words(state), 80)),
      el('td', { class: 'muted', dir: 'auto' }, reason ? line(reason, 200) : since ? `version of ${clock(since)}` : '')));
  const sent = health.repairs.map(({ peer, text }) =>
    el('li', {}, el('span', { class: 'mono', title: visible(peer) }, shortId(visible(peer))), ' ', el('span', { dir: 'auto' }, line(text, 200))));
  return [
    el('p', {}, `${summary} ${health.local ? 'A version is here.' : 'None is here.'}`),
    rows.length ? el('table', { class: 'list plain' }, el('tbody', {}, ...rows)) : null,
    sent.length ? el('h3', {}, 'Sent to') : null,
    sent.length ? el('ol', { class: 'trace' }, ...sent) : null,
  ].filter(Boolean);
}

function whyView(answer) {
  const trace = traceOf(answer);
  const list = el('dl', { class: 'facts tight' });
  facts(list, [
    ['Holder', trace.holder === null ? 'the swarm does not run' : trace.holder ? 'yes, one of the closest to its key' : 'no'],
    ['Published next', trace.next ? `${clock(trace.next)} (${ago(trace.next)})` : 'not by this node'],
  ]);
  const events = trace.events.map(({ time, text }) =>
    el('li', {}, el('span', { class: 'mono time' }, clock(time, true)), ' ', el('span', { dir: 'auto' }, line(text, 300))));
  const history = trace.history.map(({ sequence, time, text }) =>
    el('li', {}, el('span', { class: 'mono time' }, `#${sequence}`), ' ', el('span', { dir: 'auto' }, line(`${text}${time ? `, the version of ${clock(time)}` : ''}`, 300))));
  return [
    list,
    ...(events.length ? [el('h3', {}, 'Since the node started'), el('ol', { class: 'trace' }, ...events)] : []),
    ...(history.length ? [el('h3', {}, 'In the history of changes'), el('ol', { class: 'trace' }, ...history)] : []),
    ...(events.length || history.length ? [] : [el('p', { class: 'muted' }, 'Nothing is kept of what happened to it.')]),
  ];
}

function questions(target) {
  return [
    question('Where it is stored', 'asks the peers that should hold it', async (signal, answer) => {
      const shown = healthView(await get(pathOf(target, 'health'), { signal, patience: 60_000 }));
      const repair = el('button', { type: 'button', class: 'quiet small' }, 'Send it to those that lack it');
      repair.addEventListener('click', async () => {
        repair.disabled = true;
        try {
          answer.replaceChildren(...healthView(await post(pathOf(target, 'health'), { signal, patience: 60_000 })));
        } catch (error) {
          if (!signal.aborted) answer.append(el('p', { class: 'problem' }, line(error.message, 400)));
        }
      });
      return [...shown, repair];
    }),
    question('What happened to it', 'on this node', async (signal) => whyView(await get(pathOf(target, 'why'), { signal }))),
  ];
}

/** The value; or why there is none. */
function valueParts({ value, unreadable, reason }) {
  if (unreadable) return [el('p', { class: 'problem' }, 'This node cannot read the value: ', el('span', { dir: 'auto' }, line(unreadable, 400)))];
  if (value === undefined || (value === null && reason)) return [el('p', { class: 'muted' }, `There is none${reason ? `: ${line(words(reason), 60)}` : ''}.`)];
  return [valueView(value), jsonView(value)];
}

async function load(target, query) {
  turn += 1;
  const mine = turn;
  loading = true;
  again = false;
  lastLoad = Date.now();
  await show(target, query, () => mine === turn && asked === target);
  if (mine !== turn) return;
  loading = false;
  if (again) refreshRecord();
}

/** Reads a record and shows it, if it is still wanted when it comes. */
async function show(target, query, isWanted) {
  const body = byId('record-value');
  try {
    const whole = query.consistency === 'newest' ? withTimeout(query, PATIENCE) : query;
    const record = await get(pathOf(target), { signal: controller.signal, query: whole, patience: PATIENCE });
    if (!isWanted()) return;
    const text = jsonText(record);
    // The same answer must not close what the reader has opened.
    if (body.dataset.shown === text) return;
    const isUpdate = body.dataset.shown !== undefined;
    body.dataset.shown = text;
    body.replaceChildren(
      el('h3', {}, 'Value'), ...valueParts(record),
      el('h3', {}, 'Version'), metaView(record));
    if (isUpdate) {
      body.classList.remove('fresh');
      requestAnimationFrame(() => body.classList.add('fresh'));
    }
  } catch (error) {
    if (!isWanted()) return;
    delete body.dataset.shown;
    const network = el('button', { type: 'button' }, 'Ask the network');
    network.addEventListener('click', () => {
      network.disabled = true;
      load(target, { consistency: 'newest' });
    });
    const missing = error.status === 404;
    body.replaceChildren(
      el('p', { class: missing ? 'muted' : 'problem' }, missing ? 'There is no such record here, or no more.' : line(error.message, 400)),
      ...(missing && query.consistency === 'local' ? [network] : []));
  }
}

/** Shows the record `{model, key}`, the key being its text. */
export function openRecord(target) {
  closeRecord();
  asked = target;
  controller = new AbortController();
  setText(byId('h-record'), line(target.key, 80) || '(empty)');
  byId('record-body').replaceChildren(
    el('div', { id: 'record-value' }, el('p', { class: 'muted' }, 'Reading\u2026')), ...questions(target));
  byId('record').hidden = false;
  return load(target, { consistency: 'local' });
}

/** Reads the record again that is shown, if any: one reading at a time, and at most one in a second. */
export function refreshRecord() {
  if (!asked) return;
  if (loading) {
    again = true;
    return;
  }
  refreshTimer ||= setTimeout(() => {
    refreshTimer = 0;
    if (asked && !loading) load(asked, { consistency: 'local' });
  }, Math.max(0, lastLoad + REFRESH_EVERY - Date.now()));
}

/** The record that is shown, `{model, key}`; null if none is. */
export const openedRecord = () => asked;

export function closeRecord() {
  controller?.abort();
  clearTimeout(refreshTimer);
  refreshTimer = 0;
  loading = false;
  again = false;
  asked = null;
  byId('record').hidden = true;
  byId('record-body').replaceChildren();
}
