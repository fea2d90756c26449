// Records by model: searches, a page at a time, kept current by the stream of changes.

import { Away, follow, get, link, poll, segment, withTimeout } from './api.js';
import { arrowKeys, byId, el, reconcile, setText } from './dom.js';
import { ago, bytes, count, line, shortHex, visible } from './format.js';
import { closeRecord, openRecord, openedRecord, refreshRecord } from './record.js';
import { modelOf, queryOf, recordOf, reportOf } from './shapes.js';
import { state } from './state.js';

/** How many records are in the page at a time. */
export const PAGE = 50;
const MODELS_EVERY = 5000;
/** How long a page of records may take, in milliseconds. */
const PATIENCE = 30_000;
/** A page is read again for changes at most this often, in milliseconds. */
const REFRESH_EVERY = 1000;

let models = [];
/** What is shown: `{model, by, how, value, scope, reverse}`. */
let search = null;
/** Where the pages begin that lead to the one that is shown; the first is null. */
let cursors = [null];
let next = null;
let reading = null;
let stopFollowing = null;
/** Keys that have changed since the page was read. */
let changed = new Set();
let refreshTimer = 0;
let lastRead = 0;
let returnTo = null;
let refreshModels = () => {};

const none = { by: '', how: 'exact', value: '', scope: 'local', reverse: false };

function hashOf({ model, by, how, value, scope, reverse }, key = null) {
  const given = new URLSearchParams();
  if (value) {
    if (by) given.set('by', by);
    if (how !== 'exact') given.set('how', how);
    given.set('value', value);
  } else if (by) given.set('by', by);
  if (scope !== 'local') given.set('scope', scope);
  if (reverse) given.set('reverse', 'true');
  const query = String(given);
  return `#/records/${encodeURIComponent(model)}${key === null ? '' : `/${encodeURIComponent(key)}`}${query ? `?${query}` : ''}`;
}

function searchOf(model, query) {
  return {
    model,
    by: query.get('by') ?? none.by,
    how: query.get('how') === 'prefix' ? 'prefix' : 'exact',
    value: query.get('value') ?? none.value,
    scope: query.get('scope') === 'network' ? 'network' : 'local',
    reverse: query.get('reverse') === 'true',
  };
}

function showModels() {
  const list = byId('models');
  reconcile(list, models, (model) => model.name,
    (model) => el('li', {}, el('a', { href: hashOf({ ...none, model: model.name }) }, el('span', { class: 'name' }, line(model.name, 40)), el('span', { class: 'num' }))),
    (row, model) => {
      setText(row.firstElementChild.lastElementChild, count(model.records));
      if (model.name === search?.model) row.firstElementChild.setAttribute('aria-current', 'true');
      else row.firstElementChild.removeAttribute('aria-current');
    });
}

function showForm() {
  const model = models.find(({ name }) => name === search.model);
  const by = byId('query-by');
  const options = [['', 'primary key'], ...(model?.indexes ?? []).map((name) => [name, name])];
  by.replaceChildren(...options.map(([value, label]) => el('option', { value }, line(label, 40))));
  by.value = options.some(([value]) => value === search.by) ? search.by : '';
  byId('query-how').value = search.how;
  byId('query-value').value = search.value;
  byId('query-scope').value = search.scope;
  byId('query-reverse').checked = search.reverse;
}

function makeRow(record) {
  const link = el('a', { class: 'mono', href: hashOf(search, record.text) });
  link.append(el('bdi', {}, line(record.text, 60) || '(empty)'));
  return el('tr', {},
    el('th', { scope: 'row' }, link), el('td', { class: 'summary', 'data-label': 'Value' }, el('bdi')),
    el('td', { class: 'mono', 'data-label': 'Author' }), el('td', { class: 'num', 'data-label': 'Written' }), el('td', { class: 'num', 'data-label': 'Size' }));
}

function fillRow(row, record) {
  const [, summary, author, written, size] = row.children;
  setText(summary.firstElementChild, line(record.summary));
  summary.classList.toggle('bad', record.unreadable);
  setText(author, shortHex(visible(record.author ?? '\u2013')));
  setText(written, ago(record.written));
  setText(size, bytes(record.size));
  const opened = openedRecord();
  row.classList.toggle('chosen', opened !== null && record.text === opened.key);
  // Named again at every change, so that the animation starts again.
  if (changed.has(record.text)) {
    row.classList.remove('fresh');
    void row.offsetWidth;
    row.classList.add('fresh');
  }
}

function showPage(records, report) {
  reconcile(byId('record-table').tBodies[0], records.map(recordOf), (record) => record.text, makeRow, fillRow);
  changed = new Set();
  const empty = byId('records-empty');
  empty.hidden = records.length > 0;
  setText(empty, search.value ? 'No record matches.' : 'There are no records yet.');
  byId('page-first').disabled = cursors.length < 2;
  byId('page-back').disabled = cursors.length < 2;
  byId('page-next').disabled = next === null;
  const first = (cursors.length - 1) * PAGE;
  setText(byId('page-note'), records.length ? `${count(first + 1)} to ${count(first + records.length)}` : '');
  setText(byId('records-note'), report);
}

function complain(error) {
  const box = byId('records-problem');
  box.hidden = error === null;
  setText(box, error === null ? '' : line(error.message, 400));
}

async function read() {
  clearTimeout(refreshTimer);
  refreshTimer = 0;
  reading?.abort();
  const mine = new AbortController();
  reading = mine;
  lastRead = Date.now();
  outdated(false);
  const query = { ...queryOf(search), limit: PAGE, cursor: cursors.at(-1) };
  try {
    const answer = await get(`/v1/models/${segment(search.model)}/records`, {
      query: search.scope === 'network' ? withTimeout(query, PATIENCE) : query,
      signal: mine.signal,
      patience: PATIENCE,
    });
    if (reading !== mine) return;
    next = answer.next ?? null;
    complain(null);
    showPage(answer.records, reportOf(answer.report));
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error instanceof Away) return;
    next = null;
    showPage([], '');
    byId('records-empty').hidden = true;
    complain(error);
  } finally {
    if (reading === mine) reading = null;
  }
}

/** Says, or no longer, that a page from the network may have changed. */
function outdated(is) {
  byId('records-outdated').hidden = !is;
}

/**
 * Reads the page again soon; a page that changes all the time is read once a second. A search of the network asks all
 * peers, so it is made anew only by who wants it.
 */
function readSoon() {
  if (search?.scope === 'network') {
    if (!reading) outdated(true);
    return;
  }
  refreshTimer ||= setTimeout(() => {
    refreshTimer = 0;
    if (state.view === 'records' && !reading) read();
    else if (state.view === 'records') readSoon();
  }, Math.max(30, lastRead + REFRESH_EVERY - Date.now()));
}

function onChange({ data }) {
  const { text } = recordOf(data);
  if (changed.size < 10 * PAGE) changed.add(text);
  const opened = openedRecord();
  if (opened !== null && opened.model === search.model && opened.key === text) refreshRecord();
  readSoon();
}

/** The node has forgotten what changed since: everything that is shown is read again. */
function readAgain() {
  if (openedRecord() !== null) refreshRecord();
  readSoon();
}

function followModel(model) {
  stopFollowing?.();
  stopFollowing = follow('/v1/changes', { query: { model }, onEvent: onChange, onGap: readAgain });
}

/** Goes to a page and back to the top of the list. */
function turn(to) {
  cursors = to;
  read().then(() => byId('record-table').parentElement.scrollTo({ top: 0 }));
}

/** Shows what the location says: a model, a search and perhaps a record. */
export function routeRecords(model, key, query, moved) {
  if (models.length === 0) return;
  const name = model ?? models[0].name;
  const wanted = searchOf(name, query);
  const before = search;
  if (JSON.stringify(wanted) !== JSON.stringify(before)) {
    search = wanted;
    cursors = [null];
    next = null;
    changed = new Set();
    showForm();
    showModels();
    if (before?.model !== name || stopFollowing === null) followModel(name);
    read();
  }
  const opened = openedRecord();
  if (key === null) {
    if (opened) {
      closeRecord();
      mark();
      if (returnTo?.isConnected) returnTo.focus();
    }
  } else if (opened === null || opened.key !== key || opened.model !== name) {
    if (opened === null) returnTo = document.activeElement;
    openRecord({ model: name, key });
    mark();
    if (moved) {
      byId('record').focus();
      byId('record').scrollIntoView({ block: 'nearest' });
    }
  }
}

function mark() {
  const opened = openedRecord();
  for (const row of byId('record-table').tBodies[0].children) row.classList.toggle('chosen', opened !== null && row.dataset.key === opened.key);
}

/** `route` shows the location again, once there are models to show. */
export function startRecords(route) {
  const form = byId('query');
  const go = () => {
    const value = byId('query-value').value;
    location.hash = hashOf({
      model: search.model,
      by: byId('query-by').value,
      how: byId('query-how').value,
      value,
      scope: byId('query-scope').value,
      reverse: byId('query-reverse').checked,
    });
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (search) go();
  });
  // Emptying the field shows everything again; the other fields act at once where they change what is shown.
  byId('query-value').addEventListener('search', () => search && go());
  for (const id of ['query-scope', 'query-reverse']) byId(id).addEventListener('change', () => search && go());
  byId('records-again').addEventListener('click', () => search && read());
  byId('page-first').addEventListener('click', () => turn([null]));
  byId('page-back').addEventListener('click', () => turn(cursors.slice(0, -1)));
  byId('page-next').addEventListener('click', () => next !== null && turn([...cursors, next]));
  const close = () => { location.hash = hashOf(search); };
  byId('record-close').addEventListener('click', close);
  byId('record').addEventListener('keydown', (event) => event.key === 'Escape' && close());
  arrowKeys(byId('record-table').tBodies[0]);

  refreshModels = poll(async () => {
    if (state.view !== 'records') return;
    const before = models.length;
    if (before === 0) models = (await get('/v1/schema')).models.map(modelOf);
    const counts = new Map((await get('/v1/models')).models.map(({ name, records }) => [name, records]));
    for (const model of models) model.records = counts.get(model.name) ?? 0;
    showModels();
    if (before === 0) route();
  }, MODELS_EVERY);
  state.addEventListener('view', () => {
    if (state.view === 'records') refreshModels();
    else {
      // One stream less while nobody looks.
      stopFollowing?.();
      stopFollowing = null;
      search = null;
      closeRecord();
    }
  });
  link.addEventListener('back', () => {
    if (state.view !== 'records' || !search) return;
    read();
    refreshRecord();
  });
}
