// Numbers as people read them, and scales on which they are drawn.

// How values become positions on an axis. asinh is linear near zero and logarithmic in both tails.
export class Scale {
  constructor(kind, unit = 1) {
    this.kind = kind;
    this.unit = unit;
  }

  static parse(text) {
    const [kind, unit] = (text ?? '').split('~');
    return new Scale(['linear', 'log', 'asinh'].includes(kind) ? kind : 'linear', Number(unit) || 1);
  }

  toString() {
    return this.kind === 'asinh' ? `asinh~${Number(this.unit.toPrecision(4))}` : this.kind;
  }

  forward(value) {
    if (this.kind === 'asinh') return Math.asinh(value / this.unit);
    return this.kind === 'log' ? Math.log10(value) : value;
  }

  inverse(position) {
    if (this.kind === 'asinh') return this.unit * Math.sinh(position);
    return this.kind === 'log' ? 10 ** position : position;
  }

  // Round values between two positions on the axis, at most about `count`, none too near another.
  ticks(from, to, count) {
    const [low, high] = [this.inverse(from), this.inverse(to)];
    const decades = this.kind === 'log' ? to - from : Math.abs(to - from) / Math.LN10;
    if (this.kind === 'linear' || decades < 1.2) return linearTicks(low, high, count);
    const spread = Math.max(Math.abs(low), Math.abs(high));
    const smallest = this.kind === 'log' ? low : this.unit;
    const [first, last] = [Math.floor(Math.log10(smallest)), Math.ceil(Math.log10(spread))];
    const powers = Array.from({ length: last - first + 1 }, (_, k) => last - k);
    const sizes = [1, 5, 2].flatMap((digit) => powers.map((power) => Number(`${digit}e${power}`)));
    const candidates = this.kind === 'log' ? sizes : [0, ...sizes.flatMap((size) => [size, -size])];
    const apart = (0.75 * (to - from)) / count;
    const places = [];
    return candidates.filter((tick) => {
      const place = this.forward(tick);
      if (tick < low || tick > high || places.some((other) => Math.abs(other - place) < apart)) return false;
      places.push(place);
      return true;
    });
  }
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((digit) => Number(`${digit}e${power}`)).find((value) => value >= raw);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

export const MINUS = '\u2212';

// Formats with at least two significant digits; `decimals` is the column's usual number of them.
export function formatNumber(value, decimals = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : `${MINUS}∞`;
  if (value === 0) return '0';
  const size = Math.abs(value);
  const exponent = Math.floor(Math.log10(size));
  if (exponent < -5 || exponent > 7) {
    const [mantissa, power] = value.toExponential(1).split('e');
    return `${mantissa.replace('-', MINUS)}${timesPower(Number(power))}`;
  }
  const wanted = decimals ?? Math.max(0, 2 - exponent);
  return fixed(value, size < 9.5 * 10 ** -wanted ? Math.max(wanted, 1 - exponent) : wanted);
}

// Formats value and error alike, the error with its significant digits: ['0.031', '0.004'].
export function formatEstimate(value, error, decimals = null) {
  if (!(error > 0) || !Number.isFinite(error) || !Number.isFinite(value)) return [formatNumber(value, decimals), ''];
  const own = errorDecimals(error);
  const places = decimals === null || error < 0.95 * 10 ** -decimals ? own : decimals;
  if (places <= 7 && Math.abs(value) < 1e9) return [fixed(value, places), fixed(error, places)];
  const power = Math.floor(Math.log10(Math.max(Math.abs(value), error)));
  const digits = Math.min(Math.max(own + power, 1), 8);
  return [`(${fixed(value / 10 ** power, digits)}`, `${fixed(error / 10 ** power, digits)})${timesPower(power)}`];
}

function fixed(value, places) {
  const text = Math.abs(value).toLocaleString('en-US', {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
  });
  return value < 0 && /[1-9]/.test(text) ? `${MINUS}${text}` : text;
}

// '×10⁻⁵' for -5.
export function timesPower(power) {
  const digits = '⁰¹²³⁴⁵⁶⁷⁸⁹';
  return `×10${power < 0 ? '⁻' : ''}${[...String(Math.abs(power))].map((digit) => digits[digit]).join('')}`;
}

export function formatCount(value) {
  return Number(value).toLocaleString('en-US');
}

// Decimals that show an error with two significant digits.
function errorDecimals(error) {
  if (!(error > 0) || !Number.isFinite(error)) return null;
  return Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 12);
}

// Decimals for a whole column: by its typical error where it has one, else by its spread.
export function columnDecimals(values, errors) {
  const typical = median(errors ?? []);
  if (typical > 0) return errorDecimals(typical);
  if (values.every((value) => !Number.isFinite(value) || Number.isInteger(value))) return 0;
  const size = median(values.map(Math.abs));
  return size > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(size)), 0), 8) : 3;
}

function median(values) {
  return quantile(values, 0.5);
}

// Quantile of the finite values; NaN where there is none.
export function quantile(values, level) {
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  return sorted.length ? sorted[Math.round(level * (sorted.length - 1))] : NaN;
}

export const LINEAR = new Scale('linear');
