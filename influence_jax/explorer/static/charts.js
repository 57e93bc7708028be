// Charts by BokehJS, which is loaded when the first chart comes into view.
//
// Drawn on canvas: BokehJS's WebGL backend builds functions from strings, which the page's
// Content-Security-Policy forbids. Axes, hover and selection work in positions of a `Scale`.
import { MINUS, timesPower } from './numbers.js';
import { button, failure, h, saveBlob } from './dom.js';

let loading = null;

function loadBokeh() {
  loading ??= loadScript('vendor/bokeh.min.js')
    .then(() => loadScript('vendor/bokeh-api.min.js'))
    .then(() => {
      window.Bokeh.set_log_level('error');
      return window.Bokeh;
    });
  loading.catch(() => {
    loading = null;
  });
  return loading;
}

function loadScript(source) {
  return new Promise((resolve, reject) => {
    const script = h('script', { src: source, onload: resolve });
    script.addEventListener('error', () => reject(new Error(`${source} could not be loaded; charts need it.`)));
    document.head.append(script);
  });
}

// The page's colors as they are now, as '#rrggbb'.
export function colors() {
  const probe = h('span');
  document.body.append(probe);
  const color = (name) => {
    probe.style.color = `var(--${name})`;
    const channels = getComputedStyle(probe).color.match(/\d+/g).slice(0, 3);
    return `#${channels.map((channel) => Number(channel).toString(16).padStart(2, '0')).join('')}`;
  };
  const names = ['card', 'text', 'muted', 'line', 'positive', 'negative', 'neutral', 'band', 'unique', 'near_duplicated'];
  const found = Object.fromEntries(names.map((name) => [name, color(name)]));
  found.classes = Array.from({ length: 8 }, (_, k) => color(`class-${k}`));
  found.classes.forEach((value, k) => (found[`class-${k}`] = value));
  probe.remove();
  return found;
}

const live = new Set();

// A figure that is drawn when it comes into view. `build(Bokeh, theme)` returns a Bokeh figure made
// by `plot`, for the colors and the width of `theme`; `name` is its file's name, `alt` says in words what it shows.
export function chart({ name, alt, build, caption = null, height = 320 }) {
  const host = h('.chart', { role: 'img', 'aria-label': alt, style: { minHeight: `${height}px` } });
  const save = (kind) => exportChart(drawn, name, kind).catch((error) => host.append(failure(error)));
  const drags = h('.drags', { role: 'group', 'aria-label': 'What dragging does' });
  const saving = ['png', 'svg'].map((kind) =>
    button(kind.toUpperCase(), () => save(kind), { title: `Save as ${kind.toUpperCase()}` }),
  );
  const element = h(
    'figure.card',
    {},
    h('.chart-tools', {}, drags, saving),
    host,
    caption ? h('figcaption', {}, caption) : null,
  );
  const drawn = { element, host, drags, build, height, view: null, queue: Promise.resolve() };
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      redraw(drawn);
    },
    { rootMargin: '200px' },
  );
  observer.observe(element);
  drawn.stop = () => observer.disconnect();
  live.add(drawn);
  return element;
}

// Draws, one after another: a later request waits for the earlier one.
function redraw(drawn) {
  drawn.queue = drawn.queue.then(async () => {
    try {
      const Bokeh = await loadBokeh();
      if (!drawn.element.isConnected) return;
      const previous = drawn.view;
      drawn.view = null;
      destroy(previous);
      drawn.host.replaceChildren();
      const figure = drawn.build(Bokeh, { ...colors(), width: drawn.host.clientWidth });
      drawn.drags.replaceChildren(...dragButtons(figure));
      drawn.view = await show(Bokeh, figure, drawn.host, drawn.height);
    } catch (error) {
      drawn.host.replaceChildren(failure(error));
    }
  });
  return drawn.queue;
}

function show(Bokeh, figure, host, height) {
  figure.height = Math.min(height, Math.max(280, host.clientWidth)); // narrow windows: no taller than wide
  host.style.minHeight = `${figure.height}px`;
  return Bokeh.Plotting.show(figure, host);
}

const interactions = new WeakMap(); // of a figure: its tools by name, and how to see all of it

const DRAGS = { lasso: 'Select', xbox_zoom: 'Zoom', box_zoom: 'Zoom', pan: 'Move' };

// Buttons that choose what dragging does, and one that shows the whole again.
function dragButtons(figure) {
  const { tools, reset } = interactions.get(figure);
  const named = Object.keys(DRAGS).filter((name) => tools[name]);
  const choices = named.map((name) =>
    button(DRAGS[name], () => {
      for (const other of named) tools[other].active = other === name;
      mark();
    }),
  );
  const mark = () =>
    choices.forEach((choice, k) => choice.setAttribute('aria-pressed', String(tools[named[k]].active)));
  mark();
  return [...choices, button('All', reset, { title: 'Show the whole (double-click)' })];
}

function destroy(view) {
  hideTip();
  if (!view) return;
  const { document: owner } = view.model;
  view.remove();
  owner?.clear();
  const { documents } = window.Bokeh;
  if (documents.includes(owner)) documents.splice(documents.indexOf(owner), 1);
}

export function redrawCharts() {
  for (const drawn of live) if (drawn.view) redraw(drawn);
}

// Forgets the charts of a page that has been left.
export function releaseCharts() {
  for (const drawn of live) {
    if (drawn.element.isConnected) continue;
    drawn.stop();
    drawn.queue.then(() => destroy(drawn.view));
    live.delete(drawn);
  }
}

async function exportChart(drawn, name, kind) {
  if (!drawn.view) return;
  if (kind === 'png') {
    saveBlob(`${name}.png`, await drawn.view.export('png', true).to_blob());
    return;
  }
  // Drawn once more, out of sight, by the backend that writes vectors.
  const Bokeh = await loadBokeh();
  const host = h('.offscreen', { style: { width: `${drawn.host.clientWidth}px` } });
  document.body.append(host);
  try {
    const figure = drawn.build(Bokeh, { ...colors(), width: drawn.host.clientWidth });
    figure.output_backend = 'svg';
    const view = await show(Bokeh, figure, host, drawn.height);
    saveBlob(`${name}.svg`, await view.export('svg', false).to_blob());
    destroy(view);
  } finally {
    host.remove();
  }
}

// Returns an empty figure in the page's style. x and y are {title, scale, range: [from, to]}, ranges
// in positions of their scales. `hover(x, y, near)` returns what to show at a point, or null;
// `tap` gets the same; `bounds` forbids to leave the ranges. `near` counts pixels from the pointer to a position.
export function plot(
  Bokeh,
  theme,
  { x, y, hover = null, tap = null, lasso = null, drag = 'xbox_zoom', wheel = false, bounds = false },
) {
  const zoom =
    drag === 'xbox_zoom'
      ? { xbox_zoom: new Bokeh.BoxZoomTool({ dimensions: 'width' }) }
      : { box_zoom: new Bokeh.BoxZoomTool() };
  const tools = {
    pan: new Bokeh.PanTool(),
    ...zoom,
    ...(lasso ? { lasso: new Bokeh.LassoSelectTool({ continuous: false, renderers: [] }) } : {}),
  };
  const scroll = wheel ? [new Bokeh.WheelZoomTool()] : [];
  const figure = new Bokeh.Plotting.figure({
    sizing_mode: 'stretch_width',
    toolbar_location: null,
    min_border_right: 14,
    x_range: new Bokeh.Range1d({ start: x.range[0], end: x.range[1], bounds: bounds ? x.range : null }),
    y_range: new Bokeh.Range1d({ start: y.range[0], end: y.range[1], bounds: bounds ? y.range : null }),
    tools: [...Object.values(tools), ...scroll],
    lod_threshold: 20000,
    lod_factor: 10,
    stylesheets: [':host(:focus), :focus { outline: none; }'],
  });
  figure.toolbar.active_drag = tools[drag];
  figure.toolbar.active_scroll = scroll[0] ?? null;
  const reset = () => {
    figure.x_range.setv({ start: x.range[0], end: x.range[1] });
    figure.y_range.setv({ start: y.range[0], end: y.range[1] });
  };
  interactions.set(figure, { tools, reset });
  figure.background_fill_color = theme.card;
  figure.border_fill_color = theme.card;
  figure.outline_line_color = null;
  for (const [axis, grid, about, most] of [
    [figure.xaxis, figure.xgrid, x, Math.max(3, Math.floor(theme.width / 85))],
    [figure.yaxis, figure.ygrid, y, Infinity],
  ]) {
    const ticker = scaleTicker(Bokeh, about, most);
    Object.assign(axis, { ticker, ...axisStyle(Bokeh, about, theme) });
    Object.assign(grid, { ticker, grid_line_color: theme.line, grid_line_alpha: 0.8, minor_grid_line_color: null });
  }
  listen(figure, hover, tap, lasso);
  figure.on_event('doubletap', reset);
  return figure;
}

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

// Ticks at round values of the scale, whose positions they have on the axis.
function scaleTicker(Bokeh, { scale, count = 6, ticks = null }, most) {
  const ticker = new Bokeh.BasicTicker();
  ticker.get_ticks = (from, to) => {
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    const major = (ticks ?? scale.ticks(low, high, Math.min(count, most))).map((tick) => scale.forward(tick));
    return { major: major.filter((place) => place >= low && place <= high), minor: [] };
  };
  return ticker;
}

function axisStyle(Bokeh, { title, scale }, theme) {
  const formatter = new Bokeh.BasicTickFormatter();
  formatter.doFormat = (places) => places.map((place) => tickLabel(scale.inverse(place)));
  return {
    formatter,
    axis_label: title,
    axis_label_text_color: theme.text,
    axis_label_text_font: FONT,
    axis_label_text_font_size: '12px',
    axis_label_text_font_style: 'normal',
    major_label_text_color: theme.muted,
    major_label_text_font: FONT,
    major_label_text_font_size: '11px',
    axis_line_color: theme.muted,
    axis_line_alpha: 0.6,
    major_tick_line_color: null,
    minor_tick_line_color: null,
  };
}

// A tick's value without digits that it does not need.
function tickLabel(value) {
  const rounded = Number(value.toPrecision(6));
  const size = Math.abs(rounded);
  if (size < 1e-12) return '0';
  if (size >= 1e-4 && size < 1e6)
    return `${rounded < 0 ? MINUS : ''}${size.toLocaleString('en-US', { maximumSignificantDigits: 6 })}`;
  const power = Math.floor(Math.log10(size) + 1e-9);
  return `${rounded < 0 ? MINUS : ''}${Number((size / 10 ** power).toPrecision(4))}${timesPower(power)}`;
}

function listen(figure, hover, tap, lasso) {
  // Pixels from the pointer to a position; the frame's size is known once it is drawn.
  const measure = (event) => {
    const { x_range: xs, y_range: ys } = figure;
    const [width, height] = [figure.inner_width || 1, figure.inner_height || 1];
    return (px, py) =>
      Math.hypot(((px - event.x) / (xs.end - xs.start)) * width, ((py - event.y) / (ys.end - ys.start)) * height);
  };
  const inside = ({ x, y }) => {
    const { x_range: xs, y_range: ys } = figure;
    return (
      x >= Math.min(xs.start, xs.end) &&
      x <= Math.max(xs.start, xs.end) &&
      y >= Math.min(ys.start, ys.end) &&
      y <= Math.max(ys.start, ys.end)
    );
  };
  if (hover) {
    figure.on_event('mousemove', (event) => {
      const content = inside(event) ? hover(event.x, event.y, measure(event)) : null;
      if (content) showTip(content);
      else hideTip();
    });
    figure.on_event('mouseleave', hideTip);
  }
  if (tap) figure.on_event('tap', (event) => inside(event) && tap(event.x, event.y, measure(event)));
  if (lasso) {
    figure.on_event('selectiongeometry', (event) => {
      const { geometry } = event;
      if (event.final && geometry.type === 'poly') lasso(Array.from(geometry.x, (value, k) => [value, geometry.y[k]]));
    });
  }
}

// Position of the point nearest to the pointer within 12 pixels, or -1.
export function nearest(xs, ys, near, reach = 12) {
  let [best, least] = [-1, reach];
  for (let k = 0; k < xs.length; k++) {
    const distance = near(xs[k], ys[k]);
    if (distance < least) [best, least] = [k, distance];
  }
  return best;
}

const tip = h('.tip', { 'aria-hidden': 'true' });
const pointer = { x: 0, y: 0 };
addEventListener(
  'pointermove',
  (event) => {
    Object.assign(pointer, { x: event.clientX, y: event.clientY });
    if (tip.isConnected) placeTip();
  },
  { passive: true, capture: true },
);

function showTip(content) {
  tip.replaceChildren(...[content].flat());
  if (!tip.isConnected) document.body.append(tip);
  placeTip();
}

function placeTip() {
  const { width, height } = tip.getBoundingClientRect();
  const left = pointer.x + 16 + width > innerWidth ? pointer.x - width - 12 : pointer.x + 16;
  const top = pointer.y + 16 + height > innerHeight ? pointer.y - height - 12 : pointer.y + 16;
  Object.assign(tip.style, { left: `${Math.max(left, 4)}px`, top: `${Math.max(top, 4)}px` });
}

function hideTip() {
  tip.remove();
}

// Bounds of the finite values with a margin on both sides.
export function paddedRange(values, margin = 0.04) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const pad = (high - low || Math.abs(low) || 1) * margin;
  return [low - pad, high + pad];
}

// Legend entries outside of the figure, so that they hide nothing: [[color, text], ...].
export function legend(entries) {
  return h(
    'ul.legend',
    {},
    entries.map(([color, text]) => h('li', {}, h('i', { style: { background: color } }), text)),
  );
}
