// Elements of the page. Text from data enters through text nodes and attributes only.
import { formatEstimate } from './numbers.js';

// Elements of the page. Text from data enters through text nodes and attributes only.

const SVG = 'http://www.w3.org/2000/svg';

// Makes an element: h('a.link', {href, onclick, style: {...}, 'aria-label': ...}, child, ...).
export function h(selector, properties = {}, ...children) {
  const [tag, ...classes] = selector.split('.');
  return fill(document.createElement(tag || 'div'), classes, properties, children);
}

// The same for SVG.
export function svg(selector, properties = {}, ...children) {
  const [tag, ...classes] = selector.split('.');
  return fill(document.createElementNS(SVG, tag), classes, properties, children);
}

function fill(element, classes, properties, children) {
  if (classes.length) element.classList.add(...classes);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'style') Object.assign(element.style, value);
    else if (name === 'value' || name === 'checked' || name === 'open') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

// A thumbnail of an example, or null where the run has no images.
export function thumbnail(run, example, size, name = '') {
  const style = run.thumbnail(example, size);
  if (!style) return null;
  const label = name ? { role: 'img', 'aria-label': name } : { 'aria-hidden': 'true' };
  return h('span.thumb', { ...label, style: { ...style, width: `${size}px`, height: `${size}px` } });
}

// `value ± error`, at the decimals of its column where one is given.
export function estimate(value, error, decimals = null) {
  const [middle, spread] = formatEstimate(value, error, decimals);
  return h('span.number', {}, h('b', {}, middle), spread ? h('span.error', {}, ` ± ${spread}`) : null);
}

// What whiskers show, as every page that draws them says.
export const WHISKERS =
  'Whiskers of significant pairs are 95 % intervals, adjusted for being chosen among all pairs; all others are ± 1 standard error.';

// Ends of the whisker of an entry [position, value, error, stands out, low, high, cross-fitted]: the
// last three are of significant pairs alone.
export function whisker([, value, error, , low, high]) {
  if (Number.isFinite(low) && Number.isFinite(high)) return [low, high];
  return [value - (error ?? 0), value + (error ?? 0)];
}

// From the lowest to the highest end of the whiskers of entries, zero among them.
export function whiskerScale(rows) {
  const ends = rows.flatMap(whisker).filter(Number.isFinite);
  return [Math.min(0, ...ends), Math.max(0, ...ends)];
}

// A small whisker on the scale [low, high] of its column, with a tick at zero.
export function interval(value, [from, to], [low, high], width = 96) {
  const x = (v) => Math.min(Math.max(((v - low) / (high - low || 1)) * (width - 8) + 4, 1), width - 1);
  const drawing = svg('svg.interval', { width, height: 14, viewBox: `0 0 ${width} 14`, 'aria-hidden': 'true' });
  drawing.append(svg('line.zero', { x1: x(0), x2: x(0), y1: 1, y2: 13 }));
  if (!Number.isFinite(value)) return drawing;
  drawing.append(
    svg('line.whisker', { x1: x(from), x2: x(to), y1: 7, y2: 7 }),
    svg(`circle.${value < 0 ? 'negative' : 'positive'}`, { cx: x(value), cy: 7, r: 3 }),
  );
  return drawing;
}

export function verdictChip(verdict) {
  return h('span.chip', { 'data-verdict': verdict.name, title: verdict.help || null }, verdict.title);
}

// What stands where a part could not be read; the rest of the page keeps working.
export function failure(error) {
  return h(
    'p.failure',
    { role: 'alert' },
    h('b', {}, 'This part could not be shown. '),
    String(error?.message ?? error),
  );
}

// Fills `host` with what the promise gives; says that it is loading, or what went wrong.
export async function fillLater(host, promise, build) {
  host.setAttribute('aria-busy', 'true');
  const waiting = setTimeout(() => host.replaceChildren(h('p.state', {}, 'Loading …')), 150);
  let children;
  try {
    children = await build(await promise);
  } catch (error) {
    children = failure(error);
  }
  clearTimeout(waiting);
  host.removeAttribute('aria-busy');
  host.replaceChildren(...[children].flat().filter(Boolean));
}

// A section with heading, an explanation, and buttons of its own.
export function section(title, how, body, tools = []) {
  const head = h('.section-head', {}, h('h2', {}, title), tools.length ? h('.section-tools', {}, tools) : null);
  return h('section', {}, head, how ? h('p.how', {}, how) : null, body);
}

export function button(label, onclick, properties = {}) {
  return h('button.button', { type: 'button', onclick, ...properties }, label);
}

export function select(label, options, value, onchange) {
  const choices = options.map(([key, title]) =>
    h('option', { value: key, selected: String(key) === String(value) }, title),
  );
  const list = h('select', { 'aria-label': label, onchange: (event) => onchange(event.target.value) }, choices);
  return h('label.field', {}, h('span', {}, label), list);
}

// Offers rows as a CSV file; numbers with all their digits, missing ones empty.
export function saveCsv(name, header, rows) {
  const lines = [header, ...rows].map((row) => row.map(csvCell).join(','));
  saveBlob(`${name}.csv`, new Blob([`${lines.join('\n')}\n`], { type: 'text/csv;charset=utf-8' }));
}

function csvCell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '';
  if (typeof value === 'number') return String(Number.isInteger(value) ? value : Number(value.toPrecision(8)));
  // Text that a spreadsheet would calculate, as in the tables of reports: also signs of full width.
  const text = /^ *[=+\-@\t\r\n]/.test(String(value).normalize('NFKC')) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function saveBlob(name, blob) {
  const address = URL.createObjectURL(blob);
  const link = h('a', { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function announce(text) {
  document.getElementById('live').textContent = text;
}

// A view of one document: heading, explanation, and what `build` makes of it.
export function documentPage(body, run, name, heading, how, build) {
  const host = h('div');
  body.append(h('h1', {}, heading), h('p.how', {}, how), host);
  fillLater(host, run.document(name), build);
  return {
    keys: {
      Escape: () => {
        location.hash = run.address('targets');
      },
    },
  };
}
