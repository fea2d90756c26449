// What the page shows, taken out of what the API answers. Fields of the API are named here and nowhere else.

import { bytes, count, millis, words } from './format.js';

/** How a peer is reached, by the last protocols of its address. */
function transportOf(address) {
  const protocols = String(address ?? '').split('/');
  if (protocols.includes('p2p-circuit')) return 'Relay';
  if (protocols.includes('quic-v1') || protocols.includes('quic')) return 'QUIC';
  if (protocols.includes('ws') || protocols.includes('wss')) return 'WebSocket';
  if (protocols.includes('tcp')) return 'TCP';
  if (protocols.includes('memory')) return 'Memory';
  return 'Other';
}

export function peerOf(answer) {
  const report = answer.report ?? {};
  return {
    id: String(answer.id),
    addresses: (answer.addresses ?? []).map(String),
    transport: transportOf(answer.addresses?.[0]),
    direction: answer.direction ?? 'unknown',
    since: millis(answer.since),
    rtt: answer.rtt_ms ?? NaN,
    agent: answer.agent ?? '',
    state: report.state ?? 'served',
    score: report.score ?? 0,
    refused: Object.entries(report.refused ?? {}),
    throttled: report.throttled ?? 0,
    bans: report.bans ?? 0,
  };
}

/** A key as one text: what the path and the search field take. */
export const keyText = (key) => (typeof key === 'string' ? key : jsonText(key));

/** JSON of what `parseExact` has read. */
export function jsonText(value, indent) {
  const exact = (_, part) => {
    if (typeof part !== 'bigint') return part;
    return JSON.rawJSON ? JSON.rawJSON(String(part)) : String(part);
  };
  return JSON.stringify(value, exact, indent) ?? '';
}

export function statusOf(answer) {
  const { store } = answer;
  const refusals = Object.entries(store.refusals ?? {}).filter(([, times]) => times > 0);
  return {
    id: String(answer.peer_id),
    version: answer.version,
    network: answer.network,
    mode: answer.mode ?? '',
    uptime: answer.uptime_s,
    started: Number.isFinite(answer.uptime_s) ? Date.now() - answer.uptime_s * 1000 : NaN,
    addresses: (answer.listen_addresses ?? []).map(String),
    peers: answer.peers,
    records: answer.records,
    models: (store.models ?? []).map(modelOf),
    written: store.own?.records ?? null,
    bytes: (store.own?.bytes ?? 0) + (store.others?.bytes ?? 0),
    disk: store.disk_bytes ?? null,
    refused: refusals.reduce((sum, [, times]) => sum + times, 0),
    refusals,
    warnings: answer.warnings ?? [],
    store: [
      ['Written here', usage(store.own)],
      ['Kept for others', usage(store.others)],
      ['Expiring', count(store.expiring)],
      ['Tombstones', count(store.tombstones)],
      ['Changes kept', count(store.history?.changes)],
      ['Commits', count(store.commits)],
    ],
  };
}

const usage = (given) => (given ? `${count(given.records)} (${bytes(given.bytes)})` : null);

export const modelOf = (answer) => ({
  name: answer.name,
  records: answer.records,
  indexes: (answer.indexes ?? []).map((index) => index.name ?? index),
});

/** The last ten minutes, a point a second, the last point now. */
export function seriesOf(answer) {
  return { points: 600, end: millis(answer.end), series: answer.series };
}

/** What a search asks the API for. */
export function queryOf({ by, how, value, scope, reverse }) {
  const query = { scope, reverse: reverse || '' };
  if (value === '') return query;
  query[how === 'prefix' ? 'prefix' : by] = value;
  return query;
}

export function recordOf(answer) {
  return {
    text: keyText(answer.key),
    author: answer.author,
    written: answer.version?.timestamp,
    size: answer.size,
    summary: summaryOf(answer.value),
  };
}

/** The beginning of a value on one line. A long text is cut before it is copied. */
function summaryOf(value) {
  if (value === null || typeof value !== 'object') return String(value).slice(0, 200);
  const cut = (part) => (typeof part === 'string' && part.length > 100 ? part.slice(0, 100) : part);
  return Object.entries(value)
    .slice(0, 12)
    .map(([name, part]) => `${name}: ${typeof part === 'object' && part !== null ? jsonText(part).slice(0, 60) : cut(part)}`)
    .join(', ');
}

export function healthOf(answer) {
  return {
    current: answer.current,
    wanted: answer.wanted,
    local: answer.local ?? null,
    holders: (answer.holders ?? []).map((holder) => ({ peer: String(holder.peer), state: holder.state, since: holder.version?.timestamp })),
  };
}

export function traceOf(answer) {
  return {
    holder: answer.is_holder ?? null,
    next: answer.next_publication ?? null,
    events: (answer.events ?? []).map(({ time, kind, ...more }) => ({ time, text: [words(kind), pairs(more)].filter(Boolean).join(' \u00b7 ') })),
  };
}

/** What is in an object on one line: `name value, name value`. */
function pairs(object) {
  return Object.entries(object)
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => `${words(name)} ${typeof value === 'object' ? jsonText(value) : value}`)
    .join(', ');
}

const EVENT_KINDS = [
  [/refus|slow|bann/i, 'refusal'],
  [/sync|repair/i, 'sync'],
  [/record|put|remove|stored|updated|expired/i, 'record'],
  [/connect|dial|peer|listen|address|identif|mdns/i, 'connection'],
];

export function eventOf({ type, data }) {
  const object = data !== null && typeof data === 'object' ? data : { what: data };
  const { time, type: inner, event, ...rest } = object;
  const name = type !== 'message' ? type : (event ?? inner ?? 'event');
  const kind = EVENT_KINDS.find(([pattern]) => pattern.test(name))?.[1] ?? 'other';
  return { type: String(name), kind, time: time ?? Date.now(), text: pairs(rest) };
}
