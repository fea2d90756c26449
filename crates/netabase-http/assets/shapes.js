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
  const [first] = answer.connections ?? [];
  return {
    id: String(answer.peer),
    addresses: (answer.connections ?? []).map(({ address }) => String(address)),
    transport: transportOf(first?.address),
    direction: first?.direction ?? 'unknown',
    since: millis(first?.since),
    rtt: answer.rtt_ms ?? NaN,
    agent: answer.agent ?? '',
    state: report.state && report.state !== 'good' ? report.state : 'served',
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

/** The node's status, with the models and the number of their records. */
export function statusOf(answer, models) {
  const { store } = answer;
  const refusals = Object.entries(answer.refused ?? {}).filter(([, times]) => times > 0);
  return {
    id: String(answer.peer_id),
    version: answer.version,
    network: answer.network,
    mode: answer.mode ?? '',
    uptime: answer.uptime_ms / 1000,
    started: millis(answer.started),
    addresses: (answer.listen_addresses ?? []).map(String),
    peers: answer.peers?.length ?? 0,
    records: answer.records,
    models: models.map((model) => ({ name: String(model.name), records: model.records })),
    backend: store.backend ?? '',
    disk: store.disk_bytes ?? null,
    refused: refusals.reduce((sum, [, times]) => sum + times, 0),
    refusals,
    warnings: answer.warnings ?? [],
    store: [
      ['Database', store.path ?? 'in memory'],
      ['Backend', store.backend],
      ['Commits', count(store.commits)],
      ['Author', answer.author],
    ],
  };
}

/** The authors with the most bytes, then those who are only refused or too fast; and the rate of each, 0 for none. */
export function authorsOf(answer) {
  const fast = new Map((answer.fast ?? []).map(({ author, refused }) => [String(author), refused]));
  const listed = (answer.authors ?? []).map((one) => ({
    author: String(one.author),
    own: Boolean(one.own),
    refused: Boolean(one.refused),
    records: one.records ?? 0,
    tombstones: one.tombstones ?? 0,
    bytes: one.bytes ?? 0,
  }));
  const known = new Set(listed.map(({ author }) => author));
  const refused = new Set((answer.refused ?? []).map(String));
  const others = [...new Set([...fast.keys(), ...refused])].filter((author) => !known.has(author))
    .map((author) => ({ author, own: false, refused: refused.has(author), records: 0, tombstones: 0, bytes: 0 }));
  const authors = [...listed, ...others].map((one) => ({ ...one, fast: fast.get(one.author) ?? 0 }));
  return { authors, rate: answer.records_per_second ?? 0 };
}

/** How much of an author was removed, and whether it comes back. */
export const removalOf = ({ records, tombstones, refused }) => ({ records, tombstones, isRefused: Boolean(refused) });

/** What the database is made of, in parts: a title, and names with what is there. */
export function sizesOf(answer) {
  const table = ({ count: entries, key_bytes: keys, value_bytes: values }) => `${count(entries)}, ${bytes(keys + values)}`;
  const models = answer.models.flatMap(({ name, records, secondary_keys: keys }) =>
    [[String(name), table(records)], ...keys.map((key) => [`${name} by ${key.name}`, table(key.entries)])]);
  return [
    ['Records and their keys', [...models, ['Of unknown models', table(answer.foreign)], ['Removed', table(answer.tombstones)]]],
    ['Whose they are', [
      ['Of this node', bytes(answer.own_bytes)], ['Of others', bytes(answer.others_bytes)],
      ...answer.largest_authors.slice(0, 5).map(({ author, bytes: size }) => [`${String(author).slice(0, 10)}\u2026`, bytes(size)]),
    ]],
    ['Beside them', [
      ['Changes kept', `${count(answer.history.changes)}, ${bytes(answer.history.bytes)}`], ['With an expiry', count(answer.expiring)],
      ['To be published', count(answer.scheduled)], ['On the disk', answer.disk_bytes === null ? 'nothing' : bytes(answer.disk_bytes)],
    ]],
  ];
}

/** A model of the schema: its name and its secondary keys. */
export const modelOf = (answer) => ({
  name: String(answer.name),
  records: 0,
  indexes: (answer.secondary_keys ?? []).map(({ name }) => String(name)),
});

/** The series of the API that are plotted. */
export const SERIES = ['puts', 'gets', 'synced_in', 'synced_out', 'bytes_in', 'bytes_out'];
/** How many samples are kept. */
const SAMPLES = 600;

/** The samples that are there and those that came since, which are all if they do not go on where these end. */
export function joined(known, answer) {
  if (!known || !answer.continues) return answer;
  const both = (one, other) => [...(one ?? []), ...(other ?? [])].slice(-SAMPLES);
  const counters = Object.fromEntries(SERIES.map((name) => [name, both(known.counters[name], answer.counters[name])]));
  return { ...answer, times: both(known.times, answer.times), counters };
}

/** How long the time is that is plotted, in milliseconds. */
export const SPAN = 600_000;

/**
 * The last ten minutes as rates: the times at which samples were taken, and for each the rate since the one before,
 * which is null where there is none: at the first, and after a pause of the machine.
 */
export function seriesOf({ counters, interval_ms: interval, times }) {
  const at = times.map(millis);
  const rates = (...names) => at.map((now, index) => {
    const passed = now - at[index - 1];
    if (!(passed > 0) || passed > 2 * interval) return null;
    const grown = names.map((name) => counters[name]?.[index] - counters[name]?.[index - 1]);
    const sum = grown.reduce((all, part) => all + part, 0);
    // Counters of connections begin anew with the swarm.
    return Number.isFinite(sum) ? Math.max(0, sum) / (passed / 1000) : null;
  });
  return {
    times: at,
    interval,
    series: {
      puts: rates('puts'),
      gets: rates('gets'),
      sync: rates('synced_in', 'synced_out'),
      bytes_in: rates('bytes_in'),
      bytes_out: rates('bytes_out'),
    },
  };
}

/** What a search asks the API for. */
export function queryOf({ by, how, value, scope, reverse }) {
  const query = { scope, reverse: reverse || '' };
  if (by) query.index = by;
  if (value !== '') query[how === 'prefix' ? 'prefix' : 'key'] = value;
  return query;
}

export function recordOf(answer) {
  return {
    text: keyText(answer.key),
    author: answer.author,
    written: answer.version?.timestamp,
    size: answer.size,
    summary: answer.unreadable ? `unreadable: ${String(answer.unreadable).slice(0, 200)}` : summaryOf(answer.value),
    unreadable: Boolean(answer.unreadable),
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
    holders: (answer.holders ?? []).map((holder) => ({
      peer: String(holder.peer), state: String(holder.state), since: holder.version?.timestamp, reason: holder.reason ?? '',
    })),
    repairs: (answer.repairs ?? []).map(({ peer, answer: said, reason }) => ({
      peer: String(peer), text: reason ? `${words(said)}: ${reason}` : words(said),
    })),
  };
}

export function traceOf(answer) {
  return {
    holder: answer.is_holder ?? null,
    next: answer.next_publication ?? null,
    events: (answer.events ?? []).map(({ time, event, ...more }) => ({ time, text: [words(event), pairs(more)].filter(Boolean).join(' \u00b7 ') })),
    history: (answer.history ?? []).map(({ sequence, kind, origin, version }) => ({
      sequence, time: version?.timestamp ?? null, text: `${words(kind)} ${origin === 'local' ? 'here' : `by a ${origin}`}`,
    })),
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

/** What the report of a search in the network says, on one line; nothing of one on this node. */
export function reportOf(report) {
  if (!report) return '';
  const peers = report.peers ?? [];
  const answered = peers.filter(({ answer }) => answer === 'answered').length;
  return `${answered} of ${peers.length} peers answered${report.is_complete === false ? '; there may be more' : ''}`;
}
