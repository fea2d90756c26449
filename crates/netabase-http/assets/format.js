// Numbers, times and untrusted text as people read them.

const number = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** 12,345 */
export const count = (value) => (Number.isFinite(value) ? number.format(value) : '\u2013');

/** 1.2 MiB */
export function bytes(value) {
  if (!Number.isFinite(value)) return '\u2013';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${short.format(rest)} ${units[unit]}`;
}

/** 3 d 4 h, of seconds; the two largest units. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '\u2013';
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(' ');
}

/** A time of the API (RFC 3339, or milliseconds) as milliseconds since 1970; NaN if there is none. */
export function millis(time) {
  if (typeof time === 'number') return time;
  return typeof time === 'string' ? Date.parse(time) : NaN;
}

/** 14:03:07, with the date if it is not today's. */
export function clock(time, withMillis = false) {
  const at = millis(time);
  if (!Number.isFinite(at)) return '\u2013';
  const date = new Date(at);
  const two = (value, digits = 2) => String(value).padStart(digits, '0');
  const ms = withMillis ? `.${two(date.getMilliseconds(), 3)}` : '';
  const day = date.toDateString() === new Date().toDateString() ? '' : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `;
  return `${day}${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${ms}`;
}

/** 3 min ago, or in 2 h. */
export function ago(time, now = Date.now()) {
  const at = millis(time);
  if (!Number.isFinite(at)) return '\u2013';
  const seconds = (now - at) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  const [length] = duration(Math.abs(seconds)).split(/(?<=[a-z]) /);
  return seconds >= 0 ? `${length} ago` : `in ${length}`;
}

/** 1.2 ms, of milliseconds. */
export function rtt(value) {
  if (!Number.isFinite(value)) return '\u2013';
  if (value < 1) return `${Math.round(value * 1000)} \u00b5s`;
  return `${short.format(value < 100 ? value : Math.round(value))} ms`;
}

/** The end of a peer's id, which is where ids differ. */
export const shortId = (id) => (id.length > 12 ? `\u2026${id.slice(-8)}` : id);

/** The beginning of a hexadecimal name. */
export const shortHex = (hex) => (hex && hex.length > 12 ? `${hex.slice(0, 10)}\u2026` : (hex ?? '\u2013'));

/** What `netabase_store::text` calls hidden, but for tabs and line feeds. A test compares the two. */
const HIDDEN =
  /[\u{0}-\u{8}\u{b}-\u{1f}\u{7f}-\u{9f}\u{ad}\u{61c}\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{feff}\u{e0000}-\u{e007f}\p{NChar}]/gu;

/** Untrusted text with what could deceive the eye made visible, as `\u{202e}`. */
export function visible(text) {
  return String(text).replace(HIDDEN, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** Untrusted text on one line and of bounded length. */
export function line(text, length = 160) {
  const all = String(text);
  const cut = all.length > length ? `${all.slice(0, length)}\u2026` : all;
  return visible(cut).replace(/\s+/g, ' ');
}

/** `some_name` or `SomeName` as words. */
export const words = (name) =>
  String(name).replace(/([a-z0-9])([A-Z])/g, '$1 $2').replace(/[_-]+/g, ' ').toLowerCase();
