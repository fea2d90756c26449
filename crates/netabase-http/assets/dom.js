// Elements made of text alone: nothing that a node answers is ever parsed as HTML, and all of it is visible.

import { visible } from './format.js';

/** Returns the element with an id of index.html. */
export const byId = (id) => document.getElementById(id);

/** The attributes that people read. */
const SHOWN = ['title', 'aria-label', 'placeholder'];

/**
 * Makes an element. `props` are attributes, but for `class`, `on` (listeners by event name) and `data`
 * (data attributes); children that are not nodes become text.
 */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') element.className = value;
    else if (name === 'on') for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === 'data') Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? '' : SHOWN.includes(name) ? visible(value) : value);
  }
  const shown = children.flat().filter((child) => child !== null && child !== undefined);
  element.append(...shown.map((child) => (child instanceof Node ? child : visible(child))));
  return element;
}

/** Sets the text of an element if it differs, so that nothing is announced or painted anew for nothing. */
export function setText(element, text) {
  const wanted = visible(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Shows a list of facts: `[name, value]`, where a value is a text, a node, or a list of these. */
export function facts(list, entries) {
  const wanted = entries.filter(([, value]) => value !== null && value !== undefined && value !== '');
  list.replaceChildren(
    ...wanted.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, ...[value].flat())]),
  );
}

/**
 * Makes the rows of a table body those of `items`, and keeps the rows that are there already, so that focus,
 * selection and scrolling survive. `make(item)` returns a row, `fill(row, item)` brings it up to date.
 */
export function reconcile(body, items, keyOf, make, fill) {
  const old = new Map(Array.from(body.children, (row) => [row.dataset.key, row]));
  const wanted = new Set(items.map(keyOf));
  // First those that go: the others are in their places then, and a row that is not moved keeps the focus.
  for (const [key, row] of old) if (!wanted.has(key)) row.remove();
  let next = body.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let row = old.get(key);
    if (row) old.delete(key);
    else {
      row = make(item);
      row.dataset.key = key;
    }
    fill(row, item);
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
}

/** Lets the arrow keys move between the first links of the rows of a table. */
export function arrowKeys(body) {
  body.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
    const row = event.target.closest('tr');
    if (!step || !row || event.ctrlKey || event.metaKey || event.altKey) return;
    const link = row[step]?.querySelector('a, button');
    if (!link) return;
    event.preventDefault();
    link.focus();
  });
}

/** Copies a text, and says so on the button that asked for it. */
export function copyButton(text, what) {
  const button = el('button', { type: 'button', class: 'quiet small', 'aria-label': `Copy ${what}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      setText(button, 'Copied');
    } catch {
      setText(button, 'Not allowed');
    }
    setTimeout(() => setText(button, 'Copy'), 1500);
  });
  return button;
}

/** Whether the user has asked for less motion. */
export const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
