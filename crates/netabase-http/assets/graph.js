// The graph of peers: this node in the middle, the others around it, the farther the longer they take to answer.
// Forces act until the picture is at rest; then nothing is computed until something changes.

import { colour, onColours, sharpen } from './colours.js';
import { calm, setText } from './dom.js';
import { rtt, shortId } from './format.js';

/** Names are shown beside the peers as long as there are no more than this. */
const NAMED = 24;
/** Ticks after which the picture counts as at rest, whatever moves. */
const MAX_TICKS = 300;
const MARGIN = { x: 44, y: 26 };
const DASHES = { TCP: [], QUIC: [7, 4], WebSocket: [2, 3], Memory: [1, 4], Relay: [9, 3, 2, 3], Other: [4, 4] };
const RINGS = [1, 10, 100];

/** How far from the middle a peer belongs, as a part of the way to the edge: 0.1 ms is near, 1 s is far. */
function distance(ms) {
  if (!Number.isFinite(ms)) return 0.72;
  return 0.34 + 0.66 * Math.min(1, Math.max(0, (Math.log10(Math.max(ms, 0.01)) + 1) / 4));
}

/** A number between 0 and 1 that is always the same for an id, so that a peer has its place. */
function place(id) {
  let hash = 2166136261;
  for (let at = 0; at < id.length; at += 1) hash = Math.imul(hash ^ id.charCodeAt(at), 16777619);
  return ((hash ^ (hash >>> 15)) >>> 0) / 4294967296;
}

export class Graph {
  #canvas;
  #note;
  #open;
  #nodes = [];
  #byId = new Map();
  #frame = 0;
  #ticks = 0;
  #size = { width: 0, height: 0 };
  #hovered = null;
  #selected = null;
  #label = 'this node';

  constructor(canvas, note, onOpen) {
    this.#canvas = canvas;
    this.#note = note;
    this.#open = onOpen;
    canvas.setAttribute('role', 'application');
    canvas.setAttribute('aria-roledescription', 'graph');
    canvas.addEventListener('pointermove', (event) => this.#hover(this.#at(event)));
    canvas.addEventListener('pointerleave', () => this.#hover(null));
    canvas.addEventListener('click', (event) => this.#choose(this.#at(event)));
    canvas.addEventListener('keydown', (event) => this.#onKey(event));
    canvas.addEventListener('focus', () => this.#draw());
    canvas.addEventListener('blur', () => this.#hover(null));
    new ResizeObserver(() => this.#wake()).observe(canvas);
    onColours(() => this.#draw());
  }

  /** Shows these peers in place of those before. */
  show(peers, label) {
    this.#label = label ?? this.#label;
    const before = this.#byId;
    this.#byId = new Map();
    let changed = peers.length !== this.#nodes.length;
    this.#nodes = peers.map((peer) => {
      const far = distance(peer.rtt);
      let node = before.get(peer.id);
      if (!node) {
        const turn = place(peer.id) * 2 * Math.PI;
        node = { turn, x: 0, y: 0, placed: false };
        changed = true;
      }
      // Round trips tremble; only a clear change moves a peer.
      if (node.far === undefined || Math.abs(node.far - far) > 0.06) {
        node.far = far;
        changed = true;
      }
      node.peer = peer;
      this.#byId.set(peer.id, node);
      return node;
    });
    const links = peers.length === 1 ? '1 peer' : `${peers.length} peers`;
    this.#canvas.setAttribute('aria-label', `Graph of this node and ${links}. Arrow keys go from peer to peer, Enter shows one.`);
    if (changed) this.#wake();
    else this.#draw();
  }

  /** Marks a peer as the one that is shown elsewhere. */
  select(id) {
    this.#selected = id;
    this.#draw();
  }

  #wake() {
    const fit = sharpen(this.#canvas);
    if (!fit) return;
    this.#resize(fit);
    this.#ticks = 0;
    if (calm() || this.#nodes.every((node) => !node.placed)) {
      // The first picture is at rest already; so is every one for those who asked for less motion.
      this.#arrange();
      while (this.#ticks < MAX_TICKS && this.#tick() > 0.05);
      this.#draw();
      return;
    }
    this.#arrange();
    this.#frame ||= requestAnimationFrame(() => this.#animate());
  }

  #animate() {
    this.#frame = 0;
    const motion = this.#tick();
    this.#draw();
    if (motion > 0.05 && this.#ticks < MAX_TICKS && this.#canvas.clientWidth) {
      this.#frame = requestAnimationFrame(() => this.#animate());
    }
  }

  #resize({ width, height }) {
    const old = this.#size;
    if (old.width === width && old.height === height) return;
    for (const node of this.#nodes) {
      if (old.width) {
        node.x *= width / old.width;
        node.y *= height / old.height;
      }
    }
    this.#size = { width, height };
  }

  #radii() {
    return { rx: this.#size.width / 2 - MARGIN.x, ry: this.#size.height / 2 - MARGIN.y };
  }

  #arrange() {
    const { rx, ry } = this.#radii();
    for (const node of this.#nodes) {
      if (node.placed) continue;
      node.x = Math.cos(node.turn) * node.far * rx;
      node.y = Math.sin(node.turn) * node.far * ry;
      node.placed = true;
    }
  }

  /** Moves every peer a little to where it belongs and away from its neighbours; returns the largest move. */
  #tick() {
    this.#ticks += 1;
    const { rx, ry } = this.#radii();
    const nodes = this.#nodes;
    const reach = Math.min(90, Math.sqrt((Math.PI * rx * ry) / Math.max(1, nodes.length)) * 1.15);
    const cooling = 1 - this.#ticks / (MAX_TICKS * 1.2);
    let largest = 0;
    for (const node of nodes) {
      node.dx = 0;
      node.dy = 0;
    }
    for (let i = 0; i < nodes.length; i += 1) {
      const a = nodes[i];
      for (let j = i + 1; j < nodes.length; j += 1) {
        const b = nodes[j];
        let dx = a.x - b.x;
        let dy = a.y - b.y;
        if (Math.abs(dx) > reach || Math.abs(dy) > reach) continue;
        let length = Math.hypot(dx, dy);
        if (length > reach) continue;
        if (length < 0.01) [dx, dy, length] = [0.01 * (i - j), 0.01, 0.02];
        const push = ((reach - length) / reach) * 3;
        a.dx += (dx / length) * push;
        a.dy += (dy / length) * push;
        b.dx -= (dx / length) * push;
        b.dy -= (dy / length) * push;
      }
    }
    for (const node of nodes) {
      const now = Math.hypot(node.x / rx, node.y / ry) || 0.001;
      const pull = (node.far - now) * 0.25;
      node.dx += (node.x / now) * pull;
      node.dy += (node.y / now) * pull;
      const length = Math.hypot(node.dx, node.dy);
      const move = Math.min(length, 8) * cooling;
      if (length > 0) {
        node.x += (node.dx / length) * move;
        node.y += (node.dy / length) * move;
      }
      const out = Math.hypot(node.x / rx, node.y / ry);
      if (out > 1.04) {
        node.x *= 1.04 / out;
        node.y *= 1.04 / out;
      }
      largest = Math.max(largest, move);
    }
    return largest;
  }

  #draw() {
    const fit = sharpen(this.#canvas);
    if (!fit) return;
    const { context: c, width, height } = fit;
    const { rx, ry } = this.#radii();
    const ink = { line: colour('line'), edge: colour('edge'), accent: colour('accent'), surface: colour('surface'), muted: colour('muted'), warn: colour('warn'), text: colour('ink') };
    c.translate(width / 2, height / 2);
    c.font = '11px system-ui, sans-serif';
    c.textBaseline = 'middle';
    c.lineWidth = 1;
    if (this.#nodes.some((node) => Number.isFinite(node.peer.rtt))) {
      for (const ms of RINGS) {
        const far = distance(ms);
        c.strokeStyle = ink.line;
        c.setLineDash([]);
        c.beginPath();
        c.ellipse(0, 0, rx * far, ry * far, 0, 0, 2 * Math.PI);
        c.stroke();
        c.fillStyle = ink.muted;
        c.textAlign = 'center';
        const text = `${ms} ms`;
        const wide = c.measureText(text).width + 8;
        c.clearRect(-wide / 2, -ry * far - 7, wide, 14);
        c.globalAlpha = 0.8;
        c.fillText(text, 0, -ry * far);
        c.globalAlpha = 1;
      }
    }
    const many = this.#nodes.length > NAMED;
    const active = this.#hovered ?? this.#selected;
    for (const node of this.#nodes) {
      const isActive = node.peer.id === active;
      c.setLineDash(DASHES[node.peer.transport] ?? DASHES.Other);
      c.strokeStyle = isActive ? ink.accent : ink.edge;
      c.lineWidth = isActive ? 1.8 : 1;
      c.beginPath();
      c.moveTo(0, 0);
      c.lineTo(node.x, node.y);
      c.stroke();
    }
    c.globalAlpha = 1;
    c.setLineDash([]);
    for (const node of this.#nodes) {
      const { peer } = node;
      const isActive = peer.id === active;
      const ring = peer.state === 'served' ? ink.accent : ink.warn;
      c.beginPath();
      c.arc(node.x, node.y, isActive ? 7 : many ? 4.5 : 5.5, 0, 2 * Math.PI);
      c.fillStyle = peer.direction === 'outgoing' ? ring : ink.surface;
      c.fill();
      c.lineWidth = 1.8;
      c.strokeStyle = ring;
      c.stroke();
      if (!many || isActive) {
        const right = node.x >= 0;
        c.textAlign = right ? 'left' : 'right';
        c.fillStyle = isActive ? ink.text : ink.muted;
        c.fillText(shortId(peer.id).slice(-7), node.x + (right ? 11 : -11), node.y);
      }
    }
    c.beginPath();
    c.arc(0, 0, 11, 0, 2 * Math.PI);
    c.fillStyle = ink.surface;
    c.fill();
    c.lineWidth = 3;
    c.strokeStyle = ink.accent;
    c.stroke();
    c.beginPath();
    c.arc(0, 0, 5, 0, 2 * Math.PI);
    c.fillStyle = ink.accent;
    c.fill();
    this.#tell(active);
  }

  #tell(active) {
    const node = active && this.#byId.get(active);
    const text = node
      ? `${shortId(node.peer.id)}: ${node.peer.transport}, ${node.peer.direction}, ${rtt(node.peer.rtt)}`
      : this.#nodes.length === 0 ? 'Nobody is connected.' : '';
    setText(this.#note, text);
  }

  #at(event) {
    const x = event.offsetX - this.#size.width / 2;
    const y = event.offsetY - this.#size.height / 2;
    let best = null;
    let closest = 16;
    for (const node of this.#nodes) {
      const far = Math.hypot(node.x - x, node.y - y);
      if (far < closest) [best, closest] = [node, far];
    }
    return best?.peer.id ?? null;
  }

  #hover(id) {
    if (this.#hovered === id) return;
    this.#hovered = id;
    this.#canvas.style.cursor = id ? 'pointer' : '';
    this.#draw();
  }

  #choose(id) {
    if (!id) return;
    this.#selected = id;
    this.#draw();
    this.#open(id);
  }

  #onKey(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && this.#nodes.length) {
      event.preventDefault();
      const order = [...this.#nodes].sort((a, b) => Math.atan2(a.y, a.x) - Math.atan2(b.y, b.x));
      const at = order.findIndex((node) => node.peer.id === (this.#hovered ?? this.#selected));
      const next = at < 0 ? 0 : (at + step + order.length) % order.length;
      this.#hover(order[next].peer.id);
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      this.#choose(this.#hovered ?? this.#selected);
    }
  }
}

/** What the lines of the graph mean, for its legend: a transport and how its line is dashed. */
export const legend = Object.entries(DASHES);
