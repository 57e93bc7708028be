// The documents of the explorer: fetched once, decoded, and searchable by position.
import { Scale } from './numbers.js';

const cache = new Map();

// Fetches a JSON document below `data/`; a document that failed is asked for again next time.
export function fetchDocument(address) {
  if (!cache.has(address)) {
    const promise = load(address);
    promise.catch(() => cache.delete(address));
    cache.set(address, promise);
  }
  return cache.get(address);
}

async function load(address) {
  let response;
  try {
    response = await fetch(`data/${address}`);
  } catch (error) {
    throw new Error(`${address} could not be fetched; is the server still running?`, { cause: error });
  }
  let content = null;
  try {
    content = await response.json();
  } catch (error) {
    if (response.ok) throw new Error(`${address} is damaged: ${error.message}`, { cause: error });
  }
  if (content?.error) throw new Error(content.error);
  if (!response.ok) throw new Error(`${address} could not be read (HTTP ${response.status})`);
  return content;
}

const ARRAYS = { f4: Float32Array, i4: Int32Array, u2: Uint16Array };

// Decodes {"f4"|"i4"|"u2": base64}, little-endian; u2 counts steps from `low` to `high`. Lists pass.
export function decode(column) {
  if (Array.isArray(column)) return column.map((value) => value ?? NaN);
  const kind = Object.keys(ARRAYS).find((name) => name in column);
  const text = atob(column[kind]);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  const values = new ARRAYS[kind](bytes.buffer);
  if (kind !== 'u2') return values;
  return Float64Array.from(values, (value) => column.low + ((column.high - column.low) * value) / 65535);
}

// Decodes {"bits": base64}, eight flags a byte, the first in the highest bit.
export function decodeBits({ bits }, count) {
  const bytes = Uint8Array.from(atob(bits), (character) => character.charCodeAt(0));
  return Array.from({ length: count }, (_, k) => (bytes[k >> 3] >> (7 - (k & 7))) & 1);
}

// A run: what its documents say, by position of target and example.
export class Run {
  constructor(index, about) {
    this.index = index;
    this.about = about;
    this.names = null;
    this.quantities = new Map(about.quantities.map((quantity) => [quantity.name, quantity]));
  }

  static async open(index) {
    fetchDocument(`${index}/targets.json`).catch(() => {}); // at once, as nearly every view needs it
    return new Run(index, await fetchDocument(`${index}/run.json`));
  }

  // Address of a view of this run within the page.
  address(view, key = '', query = '') {
    const text = String(query);
    return `#/${this.index}/${view}${key === '' ? '' : `/${key}`}${text ? `?${text}` : ''}`;
  }

  document(name) {
    return fetchDocument(`${this.index}/${name}.json`);
  }

  async targets() {
    this.table ??= new Targets(this, await this.document('targets'));
    return this.table;
  }

  target(t) {
    return this.#sharded('targets', t);
  }

  example(i) {
    return this.#sharded('examples', i);
  }

  async #sharded(kind, position) {
    const { shard } = this.about;
    const documents = await this.document(`${kind}/${Math.floor(position / shard)}`);
    const found = documents[position % shard];
    if (!found) throw new Error(`There is no ${kind.slice(0, -1)} ${position} in this run.`);
    if (found.error) throw new Error(found.error);
    return found;
  }

  // Returns the example's name where it is known already, else null.
  knownName(i) {
    const t = this.table?.targetOf(i) ?? -1;
    return t >= 0 ? this.table.name(t) : (this.names?.[i] ?? null);
  }

  // Id of an example; also known for those that are no target.
  async exampleId(i) {
    const t = this.table?.targetOf(i) ?? -1;
    return t >= 0 ? this.table.ids[t] : (await this.document('examples')).ids[i];
  }

  async exampleName(i) {
    if (this.knownName(i) === null) this.names = (await this.document('examples')).names;
    return this.knownName(i) || `example ${i}`;
  }

  // Style of an example's thumbnail `size` CSS pixels wide, cut from its sheet; null without images.
  thumbnail(i, size) {
    const sheets = this.about.thumbnails;
    if (!sheets || i < 0) return null;
    const { per_sheet: perSheet, columns } = sheets;
    const place = i % perSheet;
    const rows = Math.ceil(Math.min(perSheet, this.about.examples - (i - place)) / columns);
    return {
      backgroundImage: `url("data/${this.index}/sheets/${Math.floor(i / perSheet)}.png")`,
      backgroundSize: `${columns * size}px ${rows * size}px`,
      backgroundPosition: `${-(place % columns) * size}px ${-Math.floor(place / columns) * size}px`,
    };
  }

  has(part) {
    const value = this.about.has?.[part];
    return Array.isArray(value) ? value.length > 0 : Boolean(value);
  }

  verdict(code) {
    return this.about.verdicts[code] ?? { name: 'none', title: '–', help: '' };
  }
}

// The columns of all targets.
class Targets {
  #decoded = new Map();
  #texts = null;
  #selected = null; // what was last asked for: stepping from target to target asks again

  constructor(run, document) {
    this.run = run;
    this.document = document;
    this.length = document.ids.length;
    this.ids = document.ids;
    this.example = decode(document.example);
    this.other = decode(document.strongest_other);
    this.otherStandsOut = decode(document.other_stands_out);
    this.labels = decode(document.labels);
    this.verdicts = decode(document.verdict);
    this.targetOfExample = new Map();
    for (let t = 0; t < this.length; t++) {
      if (this.example[t] >= 0) this.targetOfExample.set(this.example[t], t);
    }
  }

  name(t) {
    return this.document.names[t] || this.ids[t];
  }

  label(t) {
    return this.run.about.classes[this.labels[t]] ?? '';
  }

  targetOf(example) {
    return this.targetOfExample.get(example) ?? -1;
  }

  hasColumn(name) {
    return Boolean(name) && name in this.document.columns;
  }

  // Returns the named column, or null where there is none.
  column(name) {
    if (!this.hasColumn(name)) return null;
    if (!this.#decoded.has(name)) this.#decoded.set(name, decode(this.document.columns[name]));
    return this.#decoded.get(name);
  }

  // Quantities that have a column, in the run's order.
  get quantities() {
    return this.run.about.quantities.filter(({ name }) => this.hasColumn(name));
  }

  // Positions whose id, name or class contains every word of the query.
  #matches(query) {
    this.#texts ??= this.ids.map((id, t) => `${id}\n${this.name(t)}\n${this.label(t)}`.toLowerCase());
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    return (t) => words.every((word) => this.#texts[t].includes(word));
  }

  // Positions that pass every filter of the request, in its order; missing values last.
  select(request) {
    const key = String(request.with({ columns: null, x: null, y: null, color: null, compare: null }));
    if (this.#selected?.key !== key) this.#selected = { key, found: this.#select(request) };
    return this.#selected.found;
  }

  #select(request) {
    const tests = [];
    if (request.q) tests.push(this.#matches(request.q));
    if (request.verdicts.size) {
      const codes = this.run.about.verdicts.map(({ name }) => request.verdicts.has(name));
      tests.push((t) => codes[this.verdicts[t]]);
    }
    if (request.label >= 0) tests.push((t) => this.labels[t] === request.label);
    for (const { name, low, high } of request.ranges) {
      const values = this.column(name);
      if (values) tests.push((t) => values[t] >= low && values[t] <= high);
    }
    if (request.lasso) tests.push(this.#inside(request.lasso));
    const found = [];
    for (let t = 0; t < this.length; t++) if (tests.every((test) => test(t))) found.push(t);
    return this.#sorted(found, request.sort, request.descending);
  }

  #inside({ x, y, polygon, scales }) {
    const [xs, ys] = [this.column(x), this.column(y)];
    if (!xs || !ys) return () => true;
    return (t) => insidePolygon(scales[0].forward(xs[t]), scales[1].forward(ys[t]), polygon);
  }

  #sorted(found, key, descending) {
    const sign = descending ? -1 : 1;
    const values = this.sortValues(key);
    if (!values) return found;
    if (typeof values[0] === 'string') {
      const order = new Intl.Collator('en', { numeric: true }).compare;
      return found.sort((a, b) => sign * order(values[a], values[b]) || a - b);
    }
    return found.sort((a, b) => {
      const [p, q] = [values[a], values[b]];
      if (Number.isNaN(p) || Number.isNaN(q)) return Number.isNaN(p) - Number.isNaN(q) || a - b;
      return p === q ? a - b : sign * (p < q ? -1 : 1);
    });
  }

  sortValues(key) {
    if (key === 'record') return this.ids.map((_, t) => this.name(t));
    if (key === 'class') return this.ids.map((_, t) => this.label(t));
    if (key === 'verdict') return this.verdicts;
    // Targets that are no examples have no influence of their own; the strongest is of another.
    const isOther = key === 'other' || (key === DEFAULT_SORT && !this.hasColumn(key));
    return this.column(isOther ? 'other_value' : key);
  }
}

// Tells whether a point is inside a polygon [[x, y], ...], by the even-odd rule.
export function insidePolygon(x, y, polygon) {
  let inside = false;
  for (let k = 0, last = polygon.length - 1; k < polygon.length; last = k++) {
    const [ax, ay] = polygon[k];
    const [bx, by] = polygon[last];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

const DEFAULT_SORT = 'self_influence';

// What the address asks of the table: order, search, filters, columns.
export class Request {
  constructor(query) {
    this.query = new URLSearchParams(query);
    const sort = this.query.get('sort') ?? `-${DEFAULT_SORT}`;
    this.descending = sort.startsWith('-');
    this.sort = sort.replace(/^-/, '');
    this.q = this.query.get('q') ?? '';
    this.verdicts = new Set((this.query.get('verdict') ?? '').split(',').filter(Boolean));
    this.label = this.query.has('class') ? Number(this.query.get('class')) : -1;
    this.ranges = this.query.getAll('range').map((text) => {
      const [name, low, high] = text.split(':');
      return { name, low: low ? Number(low) : -Infinity, high: high ? Number(high) : Infinity };
    });
    this.lasso = parseLasso(this.query.get('lasso'));
    this.columns = this.query.get('columns')?.split(',').filter(Boolean) ?? null;
  }

  // The query with some entries replaced; null removes one, an array repeats one.
  with(changes) {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      for (const entry of Array.isArray(value) ? value : [value]) {
        if (entry !== null && entry !== '') query.append(name, entry);
      }
    }
    return query;
  }

  get isFiltered() {
    return Boolean(this.q || this.verdicts.size || this.label >= 0 || this.ranges.length || this.lasso);
  }
}

// Writes a lasso for the address: quantities, scales, and at most 48 corners in scaled coordinates.
export function formatLasso({ x, y, polygon, scales }) {
  const step = Math.max(1, Math.ceil(polygon.length / 48));
  const corners = polygon.filter((_, k) => k % step === 0);
  const text = corners.map((corner) => corner.map((value) => Number(value.toPrecision(5))).join(' '));
  return [x, y, scales[0], scales[1], text.join(' ')].join(':');
}

function parseLasso(text) {
  if (!text) return null;
  const [x, y, xScale, yScale, corners] = text.split(':');
  const values = (corners ?? '').split(' ').map(Number);
  if (values.length < 6 || values.some(Number.isNaN)) return null;
  const polygon = [];
  for (let k = 0; k + 1 < values.length; k += 2) polygon.push([values[k], values[k + 1]]);
  return { x, y, polygon, scales: [Scale.parse(xScale), Scale.parse(yScale)] };
}
