// The colours of the style sheet, for canvases.

const probe = document.createElement('span');
probe.hidden = true;
document.documentElement.append(probe);

/** Returns what a custom property means now, in the colours that are on. */
export function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Calls `redraw` whenever colours change. */
export function onColours(redraw) {
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  addEventListener('netabase-theme', redraw);
}

/** Makes a canvas as sharp as the screen; returns its context and its size in CSS pixels, or null if it is not seen. */
export function sharpen(canvas) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return null;
  const scale = Math.min(devicePixelRatio || 1, 3);
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
