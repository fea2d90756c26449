// The node's API: requests, streams, the token, and whether the node is there at all.

const TOKEN = 'netabase-token';
/** How long a request may take, in milliseconds. */
const PATIENCE = 10_000;
/** How long before the end of its patience a page asks the node to answer with what it has, in milliseconds. */
const HASTE = 5000;
/** The request by which alone a node that takes long counts as away. */
const STATUS = '/v1/status';
/** How long a stream may be silent, in milliseconds: the node gives a sign of life every 15 s. */
const SILENCE = 45_000;
/** How long to wait between attempts to reach a node that is away, in milliseconds. */
const RETRIES = [500, 1000, 2000, 3000, 5000];

/** What the API refused, as its problem document says it. */
export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail || document?.title || `The node answered ${status}.`);
    this.status = status;
    this.title = document?.title ?? `Error ${status}`;
    this.slug = String(document?.type ?? '').replace(/^.*\//, '');
  }
}

/** The node does not answer. */
export class Away extends Error {}

/**
 * Whether the node is there. Dispatches `change` with `state` being `connecting`, `up`, `away` or `locked`;
 * `back` when it is reached for the first time or again; `lost` when it goes away; `locked` when it wants a token.
 */
class Link extends EventTarget {
  state = 'connecting';
  /** When the node answered last, and when it will be asked again. */
  seen = 0;
  next = 0;
  #attempt = 0;
  #timer = 0;

  up() {
    this.seen = Date.now();
    this.#attempt = 0;
    clearTimeout(this.#timer);
    if (this.state === 'up') return;
    this.#set('up');
    this.dispatchEvent(new Event('back'));
  }

  away() {
    if (this.state !== 'away') {
      this.#set('away');
      this.dispatchEvent(new Event('lost'));
    }
    this.#retry();
  }

  locked() {
    this.seen = Date.now();
    if (this.state !== 'locked') this.#set('locked');
    this.dispatchEvent(new Event('locked'));
  }

  /** Asks at once, and from then on less and less often until there is an answer. */
  now() {
    clearTimeout(this.#timer);
    this.#ask();
  }

  async #ask() {
    try {
      await get(STATUS);
    } catch {
      // `get` has told the link.
    }
  }

  #retry() {
    clearTimeout(this.#timer);
    const wait = RETRIES[Math.min(this.#attempt, RETRIES.length - 1)];
    this.#attempt += 1;
    this.next = Date.now() + wait;
    this.#timer = setTimeout(() => this.#ask(), wait);
    this.dispatchEvent(new Event('change'));
  }

  #set(state) {
    this.state = state;
    this.dispatchEvent(new Event('change'));
  }
}

export const link = new Link();
addEventListener('online', () => link.state === 'away' && link.now());

function token() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

/** Keeps the token until the tab is closed. */
export function setToken(value) {
  try {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // Without storage the next request asks again.
  }
}

function headers(extra) {
  const known = token();
  return known ? { ...extra, Authorization: `Bearer ${known}` } : extra;
}

/** Parses JSON, with integers that a double cannot hold as `BigInt`. */
export function parseExact(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
      ? BigInt(context.source)
      : value,
  );
}

/** One segment of a path. */
export const segment = (text) => encodeURIComponent(text);

/**
 * The path of a record, or of what is below it. Keys that URLs take for directories are in the query string: browsers
 * fold them, escaped or not.
 */
export function recordPath(model, key, below = '') {
  const under = below && `/${below}`;
  return ['', '.', '..'].includes(key)
    ? `/v1/models/${segment(model)}/record${under}?key=${segment(key)}`
    : `/v1/models/${segment(model)}/records/${segment(key)}${under}`;
}

function withQuery(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `${path}${path.includes('?') ? '&' : '?'}${new URLSearchParams(given)}` : path;
}

/** The time that a search of the network is given, so that the node answers before the page has lost its patience. */
export const withTimeout = (query, patience) => ({ ...query, timeout_ms: patience - HASTE });

async function problem(response) {
  let document = null;
  try {
    document = await response.json();
  } catch {
    // Not a problem document; the status says enough.
  }
  return new Problem(response.status, document);
}

async function call(method, path, { query, signal, patience = PATIENCE } = {}) {
  const ends = [AbortSignal.timeout(patience), ...(signal ? [signal] : [])];
  let response;
  let body;
  try {
    response = await fetch(withQuery(path, query), {
      method,
      headers: headers({ Accept: 'application/json' }),
      signal: AbortSignal.any(ends),
      cache: 'no-store',
    });
    if (response.ok) body = parseExact(await response.text());
  } catch (error) {
    if (signal?.aborted) throw error;
    if (response && error instanceof SyntaxError) throw new Problem(response.status, { title: 'The answer is not JSON' });
    // What takes long is no sign that the node has gone: it may wait for peers.
    if (error.name === 'TimeoutError' && path !== STATUS) {
      throw new Problem(0, { title: 'Too slow', detail: `This took longer than ${Math.round(patience / 1000)} s.` });
    }
    link.away();
    throw new Away('The node does not answer.');
  }
  if (response.status === 401) {
    link.locked();
    throw await problem(response);
  }
  link.up();
  if (!response.ok) throw await problem(response);
  return body;
}

export const get = (path, options) => call('GET', path, options);
export const post = (path, options) => call('POST', path, options);
export const put = (path, options) => call('PUT', path, options);
export const del = (path, options) => call('DELETE', path, options);

/**
 * Takes the fields of server-sent events out of a stream of text; `give(event)` gets `{id, type, data}`, where
 * `data` is null if only a number came.
 */
function parser(give) {
  let rest = '';
  let event = { id: undefined, type: 'message', data: [] };
  return (text) => {
    rest += text;
    // A carriage return at the end may be half of a line end.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const one of lines) {
      if (one === '') {
        // A block with a number alone says where to go on after an interruption.
        if (event.data.length || event.id !== undefined) give({ ...event, data: event.data.length ? event.data.join('\n') : null });
        event = { id: undefined, type: 'message', data: [] };
        continue;
      }
      const colon = one.indexOf(':');
      const name = colon < 0 ? one : one.slice(0, colon);
      const value = colon < 0 ? '' : one.slice(colon + 1).replace(/^ /, '');
      if (name === 'data') event.data.push(value);
      else if (name === 'event') event.type = value;
      else if (name === 'id') event.id = value;
    }
  };
}

/**
 * Follows server-sent events until closed: `onEvent({id, type, data})` with decoded JSON, `onGap()` where the node has
 * forgotten what came since. It goes on where it was when the node comes back or the tab is looked at again; hidden tabs let go of their stream, because a browser allows few to
 * one host. (`EventSource` cannot send a token, hence `fetch`.)
 */
export function follow(path, { query, onEvent, onState = () => {}, onGap = () => {}, resumes = true }) {
  let last;
  let stop = null;
  let closed = false;
  let attempt = 0;
  let timer = 0;

  const open = async () => {
    clearTimeout(timer);
    if (closed || stop || document.hidden || link.state !== 'up') return;
    const controller = new AbortController();
    stop = () => controller.abort();
    let failed = null;
    let silence = 0;
    // A connection may die without a word, and is opened anew then.
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(), SILENCE);
    };
    heard();
    try {
      const response = await fetch(withQuery(path, query), {
        headers: headers({ Accept: 'text/event-stream', ...(last === undefined ? {} : { 'Last-Event-ID': last }) }),
        signal: controller.signal,
        cache: 'no-store',
      });
      if (!response.ok) throw await problem(response);
      onState('open');
      const read = parser((event) => {
        attempt = 0;
        if (resumes && event.id !== undefined) last = event.id;
        if (event.data === null) return;
        let data;
        try {
          data = parseExact(event.data);
        } catch {
          data = event.data;
        }
        onEvent({ ...event, data });
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        heard();
        read(value);
      }
    } catch (error) {
      failed = error;
    }
    clearTimeout(silence);
    stop = null;
    if (closed) return;
    onState('waiting');
    // Let go of on purpose, and perhaps wanted again already.
    if (controller.signal.aborted) return open();
    if (failed instanceof Problem) {
      // What the node has forgotten cannot be resumed.
      if ((failed.status === 410 || failed.status === 400) && last !== undefined) {
        last = undefined;
        onGap();
      }
      if (failed.status === 401) return link.locked();
    } else {
      // The stream broke: the node may have gone.
      link.now();
    }
    const wait = RETRIES[Math.min(attempt, RETRIES.length - 1)];
    attempt += 1;
    timer = setTimeout(open, wait);
  };

  const onBack = () => open();
  const onLost = () => stop?.();
  const onVisible = () => (document.hidden ? stop?.() : open());
  link.addEventListener('back', onBack);
  link.addEventListener('lost', onLost);
  document.addEventListener('visibilitychange', onVisible);
  open();

  return () => {
    closed = true;
    clearTimeout(timer);
    stop?.();
    link.removeEventListener('back', onBack);
    link.removeEventListener('lost', onLost);
    document.removeEventListener('visibilitychange', onVisible);
  };
}

/**
 * Calls `task` every `interval` milliseconds while the node is there and the page is looked at, one at a time; returns
 * a function that calls it at once.
 */
export function poll(task, interval) {
  let timer = 0;
  let running = false;
  let again = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    if (link.state === 'away' || link.state === 'locked') return;
    if (!document.hidden) {
      running = true;
      try {
        await task();
      } catch (error) {
        if (!(error instanceof Away || error instanceof Problem)) console.error(error);
      }
      running = false;
    }
    const soon = again;
    again = false;
    timer = setTimeout(run, soon ? 0 : interval);
  };
  link.addEventListener('back', run);
  document.addEventListener('visibilitychange', () => document.hidden || run());
  run();
  return run;
}
