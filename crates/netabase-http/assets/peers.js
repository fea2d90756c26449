// The peers: a graph, the same as a table, and one of them in full.

import { arrowKeys, byId, copyButton, el, facts, reconcile, setText } from './dom.js';
import { ago, clock, count, duration, line, rtt, shortId, visible, words } from './format.js';
import { Graph, legend } from './graph.js';
import { state } from './state.js';

/** No more rows than this, whatever the filter lets through. */
export const MAX_ROWS = 300;

let graph = null;
let shown = null;
let returnTo = null;

/** Shows a peer in the peers' view. */
export function openPeer(id) {
  location.hash = `#/peers/${encodeURIComponent(id)}`;
}

function directionText(peer) {
  return { outgoing: 'dialled', incoming: 'came' }[peer.direction] ?? peer.direction;
}

function makeRow(peer) {
  const link = el('a', { href: `#/peers/${encodeURIComponent(peer.id)}`, class: 'mono', title: visible(peer.id) }, shortId(visible(peer.id)));
  return el('tr', {},
    el('th', { scope: 'row' }, link, el('span', { class: 'tag' })),
    el('td', { 'data-label': 'Transport' }), el('td', { 'data-label': 'Direction' }),
    el('td', { class: 'num', 'data-label': 'RTT' }), el('td', { class: 'num', 'data-label': 'Since' }));
}

function fillRow(row, peer) {
  const [name, transport, direction, trip, since] = row.children;
  setText(name.lastElementChild, peer.state === 'served' ? '' : line(peer.state, 20));
  setText(transport, peer.transport);
  setText(direction, directionText(peer));
  setText(trip, rtt(peer.rtt));
  setText(since, Number.isFinite(peer.since) ? duration((Date.now() - peer.since) / 1000) : '\u2013');
  row.classList.toggle('chosen', peer.id === shown);
}

function showTable() {
  const wanted = byId('peer-filter').value.trim().toLowerCase();
  const text = (peer) => [peer.id, peer.transport, directionText(peer), peer.agent, ...peer.addresses].join(' ').toLowerCase();
  const found = wanted ? state.peers.filter((peer) => text(peer).includes(wanted)) : state.peers;
  const sorted = [...found].sort((a, b) => a.id.slice(-8).localeCompare(b.id.slice(-8)));
  reconcile(byId('peer-table').tBodies[0], sorted.slice(0, MAX_ROWS), (peer) => peer.id, makeRow, fillRow);
  const empty = byId('peer-empty');
  empty.hidden = sorted.length > 0;
  setText(empty, state.peers.length ? 'No peer matches.' : 'Nobody is connected.');
  const more = sorted.length > MAX_ROWS ? `, ${count(MAX_ROWS)} shown` : '';
  const matching = wanted ? `${count(sorted.length)} of ` : '';
  setText(byId('peers-note'), `${matching}${count(state.peers.length)} connected${more}`);
}

function showDetail() {
  const box = byId('peer-detail');
  box.hidden = shown === null;
  if (shown === null) return;
  const peer = state.peers.find((one) => one.id === shown);
  setText(byId('h-peer-detail'), `Peer ${shortId(visible(shown))}`);
  const body = byId('peer-detail-body');
  if (!peer) {
    body.replaceChildren(el('p', { class: 'muted' }, 'It is not connected now.'), el('p', { class: 'mono wrap' }, visible(shown)));
    return;
  }
  let list = body.querySelector('dl');
  if (!list) {
    list = el('dl', { class: 'facts' });
    body.replaceChildren(list);
  }
  const text = JSON.stringify(peer);
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  facts(list, [
    ['Peer id', [el('span', { class: 'mono wrap' }, visible(peer.id)), copyButton(peer.id, 'the peer id')]],
    ['Connected by', `${peer.transport}, ${peer.direction === 'outgoing' ? 'dialled by this node' : peer.direction === 'incoming' ? 'came to this node' : line(peer.direction)}`],
    ['Since', Number.isFinite(peer.since) ? `${clock(peer.since)} (${ago(peer.since)})` : null],
    ['Round trip', rtt(peer.rtt)],
    ['Addresses', peer.addresses.map((address) => el('div', { class: 'mono wrap' }, visible(address)))],
    ['Program', line(peer.agent, 200)],
    ['Conduct', peer.state === 'served' ? 'served as any other' : line(words(peer.state), 60)],
    ['Score', peer.score ? count(peer.score) : null],
    ['Refused', peer.refused.map(([reason, times]) => el('div', {}, `${words(line(reason, 60))}: ${count(times)}`))],
    ['Refused unseen', peer.throttled ? count(peer.throttled) : null],
    ['Banned', peer.bans ? `${count(peer.bans)} times` : null],
  ]);
}

/** Shows a peer, or none, as the location says; `moved` is whether the user has just asked for it. */
export function routePeers(id, moved) {
  if (id !== null && shown === null) returnTo = document.activeElement;
  const before = shown;
  shown = id;
  byId('peer-detail-body').replaceChildren();
  graph.select(id);
  showDetail();
  if (state.view === 'peers') showTable();
  if (id !== null && moved) {
    byId('peer-detail').focus();
    byId('peer-detail').scrollIntoView({ block: 'nearest' });
  } else if (id === null && before !== null && returnTo?.isConnected) returnTo.focus();
}

export function startPeers() {
  graph = new Graph(byId('peer-graph'), byId('peer-graph-note'), openPeer);
  byId('legend').replaceChildren(
    ...legend.filter(([name]) => name !== 'Other').map(([name]) => el('li', { class: `dash dash-${name.toLowerCase()}` }, name)),
    el('li', { class: 'node-out' }, 'dialled'), el('li', { class: 'node-in' }, 'came'));
  arrowKeys(byId('peer-table').tBodies[0]);
  byId('peer-filter').addEventListener('input', showTable);
  const close = () => { location.hash = '#/peers'; };
  byId('peer-close').addEventListener('click', close);
  byId('peer-detail').addEventListener('keydown', (event) => event.key === 'Escape' && close());
  const show = () => {
    if (state.view !== 'peers') return;
    graph.show(state.peers);
    showTable();
    showDetail();
  };
  state.addEventListener('peers', show);
  state.addEventListener('view', show);
}
