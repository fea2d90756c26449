// The frame of the page: which view is shown, whether the node is there, colours, and the token.

import { link, setToken } from './api.js';
import { startAuthors } from './authors.js';
import { byId, setText } from './dom.js';
import { ago, line } from './format.js';
import { startEvents } from './events.js';
import { startOverview } from './overview.js';
import { routePeers, startPeers } from './peers.js';
import { routeRecords, startRecords } from './records.js';
import { state } from './state.js';

const VIEWS = ['overview', 'peers', 'records', 'authors', 'events'];

/** `#/view/part/part?query` in parts; what is malformed is the overview. */
function location_() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  let parts;
  try {
    parts = path.split('/').map(decodeURIComponent);
  } catch {
    parts = [];
  }
  return { view: VIEWS.includes(parts[0]) ? parts[0] : 'overview', parts: parts.slice(1), query: new URLSearchParams(query) };
}

function route(moved) {
  const { view, parts, query } = location_();
  const isOther = view !== state.view;
  for (const section of document.querySelectorAll('main > section')) section.hidden = section.dataset.view !== view;
  for (const link of document.querySelectorAll('nav [data-view]')) {
    if (link.dataset.view === view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = view === 'overview' ? 'Netabase' : `${byId(`h-${view}`).textContent} \u00b7 Netabase`;
  state.show(view);
  if (isOther && moved) scrollTo(0, 0);
  if (view === 'peers') routePeers(parts[0] || null, moved);
  if (view === 'records') routeRecords(parts[0] || null, parts[1] ?? null, query, moved);
}

function showLink() {
  const text = { connecting: 'Connecting', up: 'Live', away: 'Node away', locked: 'Token needed' }[link.state];
  byId('link').dataset.state = link.state;
  setText(byId('link-text'), text);
  document.body.dataset.link = link.state;
  const box = byId('away');
  box.hidden = link.state !== 'away';
  if (link.state === 'away') {
    const seen = link.seen ? ` It answered last ${ago(link.seen)}; what is shown is from then.` : '';
    setText(box, `The node does not answer.${seen} This page goes on by itself when it is back.`);
  }
}

function startToken() {
  const dialog = byId('token');
  let tried = false;
  link.addEventListener('locked', () => {
    // A link carries no token.
    for (const one of document.querySelectorAll('.open-only')) one.hidden = true;
    const problem = byId('token-problem');
    problem.hidden = !tried;
    setText(problem, tried ? 'This is not the token of this node.' : '');
    if (!dialog.open) dialog.showModal();
    byId('token-value').focus();
  });
  // Without a token there is nothing to look at.
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  byId('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    tried = true;
    setToken(byId('token-value').value.trim());
    byId('token-value').value = '';
    link.now();
  });
  link.addEventListener('back', () => {
    tried = false;
    if (dialog.open) dialog.close();
  });
}

function startTheme() {
  const button = byId('theme');
  const root = document.documentElement;
  const names = { '': 'as the system', light: 'light', dark: 'dark' };
  const show = () => button.setAttribute('aria-label', `Colours: ${names[root.dataset.theme ?? '']}`);
  button.addEventListener('click', () => {
    const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
    // The first step is the one that can be seen.
    const order = isDark ? ['', 'light', 'dark'] : ['', 'dark', 'light'];
    const theme = order[(order.indexOf(root.dataset.theme ?? '') + 1) % order.length];
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    try {
      if (theme) localStorage.setItem('netabase-theme', theme);
      else localStorage.removeItem('netabase-theme');
    } catch {
      // Then it lasts as long as the page.
    }
    show();
    dispatchEvent(new Event('netabase-theme'));
  });
  show();
}

function startKeys() {
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    byId('main').focus();
  });
  // "/" goes to the field that searches what is shown.
  addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, select, textarea, dialog')) return;
    const field = { peers: 'peer-filter', records: 'query-value', events: 'event-filter' }[state.view];
    if (!field) return;
    event.preventDefault();
    byId(field).focus();
  });
}

startTheme();
startToken();
startKeys();
startOverview();
startPeers();
startRecords(() => route(false));
startAuthors();
state.addEventListener('status', () => {
  setText(byId('network'), line(state.status.network, 40));
  setText(byId('foot-version'), `Netabase ${line(state.status.version, 40)}`);
});
link.addEventListener('change', showLink);
showLink();
route(false);
addEventListener('hashchange', () => route(true));
state.start();
startEvents();
