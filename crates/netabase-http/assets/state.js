// What the views share, asked for while somebody looks: the node's status, its peers, its statistics.

import { get, link, poll } from './api.js';
import { SERIES, joined, peerOf, seriesOf, statusOf } from './shapes.js';

const STATUS_EVERY = 2000;
const PEERS_EVERY = 5000;
const STATISTICS_EVERY = 2000;

/** Dispatches `status`, `peers`, `statistics` and `view` when they have changed. */
class State extends EventTarget {
  /** The view that is shown: `overview`, `peers`, `records`, `authors` or `events`. */
  view = '';
  status = null;
  peers = [];
  statistics = null;
  /** The samples of the last ten minutes, of which the node is asked only for the new ones. */
  #samples = null;
  /** Everything until the first answer is in flight at the start, and then again by its own clock. */
  refreshPeers = () => {};

  start() {
    poll(async () => {
      const [status, { models }] = await Promise.all([get('/v1/status'), get('/v1/models')]);
      this.status = statusOf(status, models);
      this.#tell('status');
    }, STATUS_EVERY);
    this.refreshPeers = poll(async () => {
      if (this.view !== 'overview' && this.view !== 'peers') return;
      const { peers } = await get('/v1/peers');
      this.peers = peers.filter(({ connected }) => connected).map(peerOf);
      this.#tell('peers');
    }, PEERS_EVERY);
    const statistics = poll(async () => {
      if (this.view !== 'overview') return;
      const query = { series: SERIES.join(','), after: this.#samples?.times.at(-1) };
      this.#samples = joined(this.#samples, await get('/v1/statistics', { query }));
      this.statistics = seriesOf(this.#samples);
      this.#tell('statistics');
    }, STATISTICS_EVERY);
    this.addEventListener('view', () => {
      if (link.state !== 'up') return;
      this.refreshPeers();
      statistics();
    });
  }

  show(view) {
    if (this.view === view) return;
    this.view = view;
    this.#tell('view');
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}

export const state = new State();
