// The authors: who has most here, whose records come too fast, whose are refused, and what to do about them.

import { del, get, poll, put, segment } from './api.js';
import { arrowKeys, byId, copyButton, el, reconcile, setText } from './dom.js';
import { bytes, count, line, shortHex, visible } from './format.js';
import { authorsOf, removalOf } from './shapes.js';
import { state } from './state.js';

const EVERY = 5000;
/** How long a button waits for the second click, in milliseconds. */
const DOUBT = 5000;

let refresh = () => {};

function say(text, isProblem = false) {
  const note = byId('authors-said');
  note.hidden = !text;
  note.className = isProblem ? 'problem' : 'notice';
  setText(note, text);
}

async function act(task, done) {
  try {
    say(done(await task()));
  } catch (error) {
    say(line(error.message, 400), true);
  }
  refresh();
}

const path = (author, below = '') => `/v1/authors/${segment(author)}${below}`;

/** A button that acts at the second click; what it does cannot be undone by another click. */
function doubtful(text, what, act) {
  const button = el('button', { type: 'button', class: 'quiet small', 'aria-label': `${text} ${what}` }, text);
  let timer = 0;
  const calm = () => {
    delete button.dataset.armed;
    button.setAttribute('aria-label', `${text} ${what}`);
    setText(button, text);
  };
  button.addEventListener('click', () => {
    clearTimeout(timer);
    if ('armed' in button.dataset) {
      calm();
      act();
      return;
    }
    button.dataset.armed = '';
    button.setAttribute('aria-label', `${text} ${what}: click again`);
    setText(button, `${text}?`);
    timer = setTimeout(calm, DOUBT);
  });
  return button;
}

const refuse = (author) =>
  act(() => put(path(author, '/refusal')), () => 'Refused. The stored records are removed in the background.');

const allow = (author) =>
  act(() => del(path(author, '/refusal')), () => 'Allowed. Peers send the records again.');

const remove = (author) =>
  act(async () => removalOf(await del(path(author), { patience: 300_000 })), ({ records, tombstones, isRefused }) =>
    `Removed ${count(records)} records and ${count(tombstones)} tombstones.${isRefused ? '' : ' Peers send them again unless the author is refused.'}`);

function makeRow({ author }) {
  const name = visible(author);
  const allowing = el('button', { type: 'button', class: 'quiet small', 'aria-label': `Allow ${name}`, data: { act: 'allow' }, on: { click: () => allow(author) } }, 'Allow');
  const refusing = doubtful('Refuse', name, () => refuse(author));
  const removing = doubtful('Remove', name, () => remove(author));
  refusing.dataset.act = 'refuse';
  removing.dataset.act = 'remove';
  return el('tr', {},
    el('th', { scope: 'row' }, el('span', { class: 'mono', title: name }, shortHex(name)), ' ', copyButton(author, 'the author'), el('span', { class: 'tag' })),
    el('td', { class: 'num' }), el('td', { class: 'num' }), el('td', { class: 'num' }), el('td', { class: 'num' }),
    el('td', { class: 'acts' }, refusing, allowing, removing));
}

function fillRow(row, author) {
  const [name, records, tombstones, size, fast, acts] = row.children;
  setText(name.lastElementChild, author.own ? 'this node' : author.refused ? 'refused' : author.fast ? 'too fast' : '');
  setText(records, count(author.records));
  setText(tombstones, count(author.tombstones));
  setText(size, bytes(author.bytes));
  setText(fast, author.fast ? count(author.fast) : '');
  const [refusing, allowing, removing] = acts.children;
  refusing.hidden = author.own || author.refused;
  allowing.hidden = author.own || !author.refused;
  // What nobody has is not removed.
  removing.hidden = author.own || !(author.records || author.tombstones);
}

function show({ authors, rate }) {
  reconcile(byId('author-table').tBodies[0], authors, ({ author }) => author, makeRow, fillRow);
  const empty = byId('authors-empty');
  empty.hidden = authors.length > 0;
  setText(empty, 'This node has no records.');
  const refused = authors.filter((author) => author.refused).length;
  setText(byId('authors-note'), [refused ? `${count(refused)} refused` : '', rate ? `${count(rate)} new records of each a second` : 'no limit of new records'].filter(Boolean).join(', '));
}

export function startAuthors() {
  arrowKeys(byId('author-table').tBodies[0]);
  refresh = poll(async () => {
    if (state.view === 'authors') show(authorsOf(await get('/v1/authors')));
  }, EVERY);
  state.addEventListener('view', () => {
    if (state.view !== 'authors') return;
    say('');
    refresh();
  });
}
