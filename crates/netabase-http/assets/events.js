// The stream of what happens in the node.

import { follow } from './api.js';
import { byId, el, reconcile, setText } from './dom.js';
import { clock, count, line, words } from './format.js';
import { state } from './state.js';
import { eventOf } from './shapes.js';

/** How many events are kept. */
export const KEPT = 1000;
/** How many of them are in the page at a time. */
export const SHOWN = 200;

const KINDS = [
  ['record', 'Records'],
  ['connection', 'Connections'],
  ['refusal', 'Refusals'],
  ['sync', 'Sync'],
  ['other', 'Other'],
];

/** Events after which the list of peers is another; a failed dial is none. */
const MOVES = new Set(['connected', 'disconnected', 'stopped']);

/** The newest last. */
let ring = [];
let number = 0;
let paused = false;
let missed = 0;
let frame = 0;
let tools = null;
const off = new Set();

function makeRow(event) {
  return el('tr', { class: event.type === 'not_seen' ? 'gap' : `event-${event.kind}` },
    el('td', { class: 'mono time' }, clock(event.time, true)),
    el('td', { class: 'kind' }, words(line(event.type, 40))),
    el('td', { class: 'what', dir: 'auto' }, line(event.text, 400)));
}

function matching() {
  const wanted = byId('event-filter').value.trim().toLowerCase();
  const found = [];
  for (let at = ring.length - 1; at >= Math.max(0, ring.length - KEPT); at -= 1) {
    const event = ring[at];
    if (off.has(event.kind)) continue;
    if (wanted && !event.search.includes(wanted)) continue;
    found.push(event);
    if (found.length === SHOWN) break;
  }
  return found;
}

/** Rows never change once they are there: the new ones come on top, the old ones fall off. */
function show() {
  frame = 0;
  if (state.view !== 'events') return;
  const body = byId('event-table').tBodies[0];
  const found = matching();
  reconcile(body, found, (event) => event.key, makeRow, () => {});
  const empty = byId('events-empty');
  empty.hidden = found.length > 0;
  setText(empty, ring.length ? 'No event matches.' : 'Nothing has happened since this page was opened.');
  tell();
}

function tell() {
  const waiting = paused && missed ? `, ${count(missed)} more while paused` : '';
  const away = byId('events-note').dataset.state === 'waiting' ? ', not connected to the stream' : '';
  setText(byId('events-note'), `${count(Math.min(KEPT, ring.length))} kept${waiting}${away}`);
}

/** Shows what there is, at most four times a second. */
const soon = () => { frame ||= setTimeout(show, 250); };

/** Shows it at once: somebody has asked for it. */
function now() {
  clearTimeout(frame);
  show();
}

function take(raw) {
  const event = eventOf(raw);
  number += 1;
  if (paused) {
    missed += 1;
    if (missed % 10 === 1) tell();
    held.push({ ...event, key: String(number) });
    if (held.length > KEPT) held.shift();
    return;
  }
  add([{ ...event, key: String(number) }]);
}

/** What has come while paused. */
let held = [];

function add(events) {
  for (const event of events) {
    event.search = `${event.type} ${event.text}`.toLowerCase();
    ring.push(event);
  }
  // Cut now and then, not for each event.
  if (ring.length > 2 * KEPT) ring = ring.slice(-KEPT);
  soon();
}

function pause(on) {
  paused = on;
  tools.setAttribute('aria-pressed', String(on));
  setText(tools, on ? 'Go on' : 'Pause');
  if (!on) {
    const waiting = held;
    held = [];
    missed = 0;
    add(waiting);
  }
  now();
}

export function startEvents() {
  tools = byId('event-pause');
  tools.addEventListener('click', () => pause(!paused));
  byId('event-clear').addEventListener('click', () => {
    ring = [];
    now();
  });
  byId('event-filter').addEventListener('input', now);
  byId('event-tools').addEventListener('submit', (event) => event.preventDefault());
  byId('event-kinds').append(...KINDS.map(([kind, label]) => {
    const box = el('input', { type: 'checkbox', checked: true, value: kind });
    box.addEventListener('change', () => {
      if (box.checked) off.delete(kind);
      else off.add(kind);
      now();
    });
    return el('label', { class: 'check' }, box, el('span', {}, label));
  }));
  state.addEventListener('view', now);
  let peersTimer = 0;
  let unseenFrom = 0;
  follow('/v1/events', {
    resumes: false,
    onEvent(raw) {
      take(raw);
      if (MOVES.has(raw.type)) {
        // The graph is live: who comes and goes is asked for at once, but not for each of a crowd.
        peersTimer ||= setTimeout(() => {
          peersTimer = 0;
          state.refreshPeers();
        }, 200);
      }
    },
    onState(is) {
      byId('events-note').dataset.state = is;
      if (is === 'waiting') unseenFrom ||= Date.now();
      else if (unseenFrom) {
        take({ type: 'not_seen', data: { from: clock(unseenFrom), to: clock(Date.now()) } });
        unseenFrom = 0;
      }
      tell();
    },
  });
}

