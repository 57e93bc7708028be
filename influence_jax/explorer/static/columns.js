// What the table can show of a target.
import { columnDecimals, formatNumber, quantile } from './numbers.js';
import { estimate, h, interval, thumbnail, verdictChip, whisker } from './dom.js';

const THUMBNAIL = 40;

// What the table can show of a target, by key.
export class Columns {
  #all = new Map();

  constructor(run, targets) {
    const errorNames = new Set(targets.quantities.map(({ error }) => error).filter(Boolean));
    const add = (column) => this.#all.set(column.key, column);
    add({
      key: 'record',
      title: { image: 'Image', record: 'Record' }[run.about.noun] ?? 'Target',
      width: [170, 2.2],
      cell: (t) => recordCell(run, targets, t, location.hash.split(/\?(.*)/s)[1]),
    });
    if (run.about.classes?.length)
      add({
        key: 'class',
        title: 'Class',
        width: [80, 0.8],
        cell: (t) => h('span.clip', { title: targets.label(t) }, targets.label(t)),
      });
    for (const quantity of targets.quantities) {
      if (quantity.name === 'other_value' || errorNames.has(quantity.name)) continue;
      add(quantityColumn(targets, quantity));
    }
    add(otherColumn(run, targets));
    add({
      key: 'verdict',
      title: 'Verdict',
      help: run.about.verdicts.map(({ title, help }) => `${title}: ${help}`).join('\n'),
      width: [158, 0],
      cell: (t) => verdictChip(run.verdict(targets.verdicts[t])),
    });
  }

  get(key) {
    return this.#all.get(key);
  }

  get all() {
    return [...this.#all.values()];
  }

  chosen(keys) {
    const found = (keys ?? ['record', 'class', 'self_influence', 'margin', 'other', 'verdict'])
      .map((key) => this.#all.get(key))
      .filter(Boolean);
    return found.length ? found : this.all.slice(0, 1);
  }
}

// Picture and name of a target, as a link to its page; `query` is the table's order and filters.
export function recordCell(run, targets, t, query = '') {
  const name = targets.name(t);
  const picture = thumbnail(run, targets.example[t], THUMBNAIL);
  const below = targets.label(t);
  return h(
    `a.record${picture ? '.pictured' : ''}`,
    { href: run.address('target', t, query), tabindex: '-1', title: name },
    picture,
    h('span.name', {}, name.slice(0, 300), below ? h('small', {}, below) : null),
  );
}

function quantityColumn(targets, quantity) {
  const values = targets.column(quantity.name);
  const errors = targets.column(quantity.error);
  const decimals = columnDecimals(...[values, errors].map((column) => (column ? sample(column) : null)));
  const isSelf = quantity.name === 'self_influence';
  const scale = isSelf ? intervalScale(values, errors) : [0, 1];
  const cell = (t) => {
    const number = errors
      ? estimate(values[t], errors[t], decimals)
      : h('span.number', {}, formatNumber(values[t], decimals));
    return isSelf && Number.isFinite(values[t]) ? [interval(values[t], whisker([t, values[t], errors?.[t]]), scale, 84), number] : number;
  };
  const help = [quantity.help, quantity.unit ? `In ${quantity.unit}.` : ''].filter(Boolean).join(' ');
  return {
    key: quantity.name,
    title: quantity.title,
    help,
    numeric: true,
    width: isSelf ? [236, 0] : errors ? [150, 0] : [92, 0.5],
    cell,
  };
}

function sample(column) {
  const step = Math.max(1, Math.floor(column.length / 2000));
  return Array.from({ length: Math.ceil(column.length / step) }, (_, k) => column[k * step]);
}

function intervalScale(values, errors) {
  const ends = (sign) => sample(values).map((value, k) => value + sign * (errors ? sample(errors)[k] : 0));
  return [Math.min(0, quantile(ends(-1), 0.002)), Math.max(quantile(ends(1), 0.999), 1e-12)];
}

// The strongest other example: what it is, and its influence.
function otherColumn(run, targets) {
  const quantity = run.quantities.get('other_value');
  const values = targets.column('other_value');
  const errors = targets.column(quantity?.error);
  const decimals = values ? columnDecimals(sample(values), errors ? sample(errors) : null) : null;
  const cell = (t) => {
    const example = targets.other[t];
    if (example < 0) return '–';
    const name = h('span.clip');
    const known = run.knownName(example);
    name.textContent = known ?? `example ${example}`;
    if (known === null)
      run.exampleName(example).then(
        (text) => {
          name.textContent = text.slice(0, 200);
        },
        () => {},
      );
    const own = targets.targetOf(example);
    const address = own >= 0 ? run.address('target', own) : run.address('example', example);
    const picture = thumbnail(run, example, THUMBNAIL);
    const isNoise = !targets.otherStandsOut[t];
    return h(
      `a.other${picture ? '.pictured' : ''}${isNoise ? '.noise' : ''}`,
      { href: address, tabindex: '-1', title: isNoise ? 'Does not stand out from noise' : null },
      picture,
      h('span.name', {}, name, values ? h('small', {}, estimate(values[t], errors?.[t], decimals)) : null),
    );
  };
  return {
    key: 'other',
    title: quantity?.title ?? 'Strongest other',
    help: quantity?.help ?? '',
    numeric: true,
    width: [190, 1.8],
    cell,
  };
}
