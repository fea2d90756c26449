// A readable view of a JSON value. All of it is untrusted: it becomes text, in bounded pieces.

import { el } from './dom.js';
import { count, line, visible } from './format.js';
import { jsonText } from './shapes.js';

/** How many characters of a text are shown before "Show all". */
export const LONG_TEXT = 400;
/** How many entries of a list or map are shown at a time. */
export const LONG_LIST = 50;
/** How deep values are taken apart; what is deeper is shown as JSON. */
const DEEP = 6;

/** A text, cut if it is long. Whatever its direction is, what is around it keeps its own. */
export function textView(text, { mono = false } = {}) {
  const all = visible(text);
  const body = el('span', { class: mono ? 'text mono' : 'text', dir: 'auto' });
  if (all.length <= LONG_TEXT) {
    body.textContent = all;
    return body;
  }
  const label = `Show all ${count(all.length)} characters`;
  const button = el('button', { type: 'button', class: 'quiet small', 'aria-expanded': 'false' }, label);
  const show = (open) => {
    body.textContent = open ? all : `${all.slice(0, LONG_TEXT)}\u2026`;
    body.classList.toggle('long', open);
    button.textContent = open ? 'Show less' : label;
    button.setAttribute('aria-expanded', String(open));
  };
  button.addEventListener('click', () => show(button.getAttribute('aria-expanded') !== 'true'));
  show(false);
  return el('div', { class: 'cut' }, body, button);
}

const isPlain = (value) => value === null || ['boolean', 'number', 'bigint'].includes(typeof value);

/** Shows entries in portions: `make(entry)` returns what is appended to `list`. */
function portions(list, entries, make) {
  let shown = 0;
  const more = el('button', { type: 'button', class: 'quiet small' });
  const next = () => {
    list.append(...entries.slice(shown, shown + LONG_LIST).flatMap(make));
    shown = Math.min(entries.length, shown + LONG_LIST);
    more.textContent = `Show more (${count(entries.length - shown)} left)`;
    more.hidden = shown >= entries.length;
  };
  more.addEventListener('click', next);
  next();
  return more.hidden ? list : el('div', { class: 'cut' }, list, more);
}

export function valueView(value, depth = 0) {
  if (value === null || value === undefined) return el('span', { class: 'none' }, 'none');
  if (typeof value === 'string') return value === '' ? el('span', { class: 'none' }, 'empty text') : textView(value);
  if (isPlain(value)) return el('span', { class: 'mono' }, String(value));
  if (depth >= DEEP) return textView(jsonText(value), { mono: true });
  if (Array.isArray(value)) {
    if (value.length === 0) return el('span', { class: 'none' }, 'empty list');
    if (value.every(isPlain)) return textView(value.map(String).join(', '), { mono: true });
    const list = el('ol', { class: 'tree' });
    return portions(list, value, (part) => [el('li', {}, valueView(part, depth + 1))]);
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return el('span', { class: 'none' }, 'empty');
  const list = el('dl', { class: depth === 0 ? 'facts value' : 'facts value nested' });
  return portions(list, entries, ([name, part]) => [
    el('dt', { dir: 'auto', title: line(name) }, line(name, 60)),
    el('dd', {}, valueView(part, depth + 1)),
  ]);
}
