// The first page: all targets in one table, to sort, search and filter.
import { Request } from './data.js';
import { columnDecimals, formatCount, formatNumber, quantile } from './numbers.js';
import { announce, button, estimate, h, interval, saveCsv, select, thumbnail, verdictChip, INTERVAL } from './dom.js';
import { VirtualTable } from './table.js';

const QUESTION = 'Which are memorized, because of which others, how sure?';
const THUMBNAIL = 40;
const places = new Map();

export async function targetsView({ run, body, query, replace }) {
  const targets = await run.targets();
  const columns = new Columns(run, targets);
  let request = new Request(query);
  let rows = [];

  const table = new VirtualTable({
    label: QUESTION,
    address: (t) => run.address('target', t, request.query),
    sort: (key) => go({ sort: nextSort(request, key, columns.get(key)?.numeric) }),
    empty: () => [
      h('p', {}, request.q ? `No target matches “${request.q}”` : 'No target passes these filters', request.q && request.isFiltered ? ' and the filters.' : '.'),
      button('Clear search and filters', () => go({ q: null, verdict: null, class: null, range: null, lasso: null })),
    ],
  });
  const go = (changes) => { location.hash = run.address('targets', '', request.with(changes)); };

  const count = h('span.count', { role: 'status' });
  const filters = filterBar(run, targets, () => request, go, (changes) => replace(request.with(changes)));
  const chooser = columnChooser(columns, () => request, go);
  const csv = button('CSV', () => saveTargets(run, targets, rows), { title: 'Save these rows as CSV, every column' });

  body.classList.add('full');
  body.append(introduction(run), h('.filters', {}, filters.element, h('.actions', {}, count, chooser.element, csv)), filters.chips, table.element);

  function update(nextQuery, keepPlace = false) {
    if (!keepPlace) places.delete(run.index);
    request = new Request(nextQuery);
    rows = targets.select(request);
    const chosen = columns.chosen(request.columns);
    const main = chosen.some(({ key, numeric }) => numeric && key === request.sort) ? request.sort : (chosen.find(({ numeric }) => numeric)?.key ?? '');
    table.setColumns(chosen, request.sort, request.descending, main);
    table.setRows(rows, { keepPlace });
    filters.update(request);
    chooser.update(chosen);
    const all = formatCount(targets.length);
    count.textContent = rows.length === targets.length ? `${all} targets` : `${formatCount(rows.length)} of ${all} targets`;
    announce(count.textContent);
  }

  update(query, true);
  return {
    update,
    keys: table.keys,
    shown: () => {
      const place = places.get(run.index);
      if (place?.query === String(request.query)) table.restore(place);
    },
    leave: () => {
      places.set(run.index, { ...table.place, query: String(request.query) });
      table.leave();
    },
  };
}

function nextSort(request, key, numeric) {
  if (request.sort !== key) return numeric ? `-${key}` : key;
  return request.descending ? key : `-${key}`;
}

function introduction(run) {
  const { about } = run;
  const facts = [
    about.members && `${formatCount(about.members)} members`, `${formatCount(about.examples)} examples`,
    about.method?.title && `${about.method.title.toLowerCase()}`, about.unit && `influence in ${about.unit}`,
  ].filter(Boolean);
  const details = [
    ...(about.caveats ?? []).map((text) => h('li.caveat', {}, text)),
    ...(about.notes ?? []).map((text) => h('li', {}, text)),
  ];
  const settings = (about.facts ?? []).map(([name, value]) => [h('dt', {}, name), h('dd', {}, String(value))]);
  const caveats = (about.caveats ?? []).length;
  return h('.intro', {},
    h('h1', {}, QUESTION),
    h('p.how', {}, `${facts.join(' · ')}. Errors are standard errors; intervals hold 95 %.`),
    details.length || settings.length
      ? h('details.about', {}, h('summary', {}, 'About this run', caveats ? h('span.badge', {}, caveats === 1 ? '1 caveat' : `${caveats} caveats`) : null),
        about.method?.description ? h('p', {}, about.method.description) : null,
        details.length ? h('ul', {}, details) : null, settings.length ? h('dl', {}, settings) : null)
      : null,
  );
}

// What the table can show of a target, by key.
export class Columns {
  #all = new Map();

  constructor(run, targets) {
    const errorNames = new Set(targets.quantities.map(({ error }) => error).filter(Boolean));
    const add = (column) => this.#all.set(column.key, column);
    add({ key: 'record', title: { image: 'Image', record: 'Record' }[run.about.noun] ?? 'Target', width: [170, 2.2], cell: (t) => recordCell(run, targets, t) });
    if (run.about.classes?.length) add({ key: 'class', title: 'Class', width: [80, 0.8], cell: (t) => h('span.clip', { title: targets.label(t) }, targets.label(t)) });
    for (const quantity of targets.quantities) {
      if (quantity.name === 'other_value' || errorNames.has(quantity.name)) continue;
      add(quantityColumn(targets, quantity));
    }
    add(otherColumn(run, targets));
    add({ key: 'verdict', title: 'Verdict', help: run.about.verdicts.map(({ title, help }) => `${title}: ${help}`).join('\n'), width: [158, 0], cell: (t) => verdictChip(run.verdict(targets.verdicts[t])) });
  }

  get(key) {
    return this.#all.get(key);
  }

  get all() {
    return [...this.#all.values()];
  }

  chosen(keys) {
    const found = (keys ?? ['record', 'class', 'self_influence', 'margin', 'other', 'verdict']).map((key) => this.#all.get(key)).filter(Boolean);
    return found.length ? found : this.all.slice(0, 1);
  }
}

export function recordCell(run, targets, t) {
  const name = targets.name(t);
  const picture = thumbnail(run, targets.example[t], THUMBNAIL);
  const below = targets.label(t);
  return h(`a.record${picture ? '.pictured' : ''}`, { href: run.address('target', t, location.hash.split(/\?(.*)/s)[1] ?? ''), tabindex: '-1', title: name }, picture,
    h('span.name', {}, name.slice(0, 300), below ? h('small', {}, below) : null));
}

function quantityColumn(targets, quantity) {
  const values = targets.column(quantity.name);
  const errors = targets.column(quantity.error);
  const decimals = columnDecimals(...[values, errors].map((column) => (column ? sample(column) : null)));
  const isSelf = quantity.name === 'self_influence';
  const [low, high] = isSelf ? intervalScale(values, errors) : [0, 1];
  const cell = (t) => {
    const number = errors ? estimate(values[t], errors[t], decimals) : h('span.number', {}, formatNumber(values[t], decimals));
    return isSelf && Number.isFinite(values[t]) ? [interval(values[t], errors?.[t], low, high, 84), number] : number;
  };
  const help = [quantity.help, quantity.unit ? `In ${quantity.unit}.` : ''].filter(Boolean).join(' ');
  return { key: quantity.name, title: quantity.title, help, numeric: true, width: isSelf ? [236, 0] : errors ? [150, 0] : [92, 0.5], cell };
}

function sample(column) {
  const step = Math.max(1, Math.floor(column.length / 2000));
  return Array.from({ length: Math.ceil(column.length / step) }, (_, k) => column[k * step]);
}

function intervalScale(values, errors) {
  const ends = (sign) => sample(values).map((value, k) => value + sign * INTERVAL * (errors ? sample(errors)[k] : 0));
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
    if (known === null) run.exampleName(example).then((text) => { name.textContent = text.slice(0, 200); }, () => {});
    const own = targets.targetOf(example);
    const address = own >= 0 ? run.address('target', own) : run.address('example', example);
    const picture = thumbnail(run, example, THUMBNAIL);
    return h(`a.other${picture ? '.pictured' : ''}`, { href: address, tabindex: '-1' }, picture,
      h('span.name', {}, name, values ? h('small', {}, estimate(values[t], errors?.[t], decimals)) : null));
  };
  return { key: 'other', title: quantity?.title ?? 'Strongest other', help: quantity?.help ?? '', numeric: true, width: [190, 1.8], cell };
}

// Search, verdicts, class and ranges; `go` makes an entry in the history, `replace` does not.
function filterBar(run, targets, current, go, replace) {
  let waiting = 0;
  const search = h('input', {
    type: 'search', placeholder: 'Search id, name, class', 'aria-label': 'Search id, name or class', spellcheck: 'false', autocomplete: 'off',
    oninput: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => replace({ q: search.value }), 90);
    },
  });
  const counts = run.about.verdicts.map(() => 0);
  for (const code of targets.verdicts) if (code in counts) counts[code]++;
  const verdicts = run.about.verdicts.map(({ name, title, help }, code) => counts[code] && h('button.toggle', {
    type: 'button', 'data-verdict': name, title: help, 'aria-pressed': 'false',
    onclick: () => {
      const chosen = new Set(current().verdicts);
      if (!chosen.delete(name)) chosen.add(name);
      go({ verdict: [...chosen].join(',') });
    },
  }, title, h('small', {}, formatCount(counts[code])))).filter(Boolean);
  const { classes } = run.about;
  const classList = classes?.length > 1 ? select('Class', [[-1, 'every class'], ...classes.map((name, code) => [code, name])], -1, (value) => go({ class: value === '-1' ? null : value })) : null;
  const chips = h('.chips');
  const element = h('.filter-controls', {}, search, h('.toggles', { role: 'group', 'aria-label': 'Verdicts' }, verdicts), classList, rangeAdder(targets, current, go));

  function update(request) {
    if (document.activeElement !== search) search.value = request.q;
    for (const toggle of verdicts) toggle.setAttribute('aria-pressed', String(request.verdicts.has(toggle.dataset.verdict)));
    if (classList) classList.querySelector('select').value = String(request.label);
    const title = (name) => run.quantities.get(name)?.title ?? name;
    const remove = (text, changes) => h('span.filter-chip', {}, text, h('button', { type: 'button', 'aria-label': `Remove: ${text}`, onclick: () => go(changes) }, '×'));
    const ranges = request.query.getAll('range');
    chips.replaceChildren(
      ...request.ranges.map(({ name, low, high }, k) => remove(
        `${title(name)} ${Number.isFinite(low) ? `≥ ${formatNumber(low)}` : ''} ${Number.isFinite(high) ? `≤ ${formatNumber(high)}` : ''}`.replace(/ +/g, ' ').trim(),
        { range: ranges.filter((_, j) => j !== k) },
      )),
      ...(request.lasso ? [remove(`${formatCount(targets.select(new Request(`lasso=${encodeURIComponent(request.query.get('lasso'))}`)).length)} selected on the map`, { lasso: null })] : []),
    );
  }
  return { element, chips, update };
}

function rangeAdder(targets, current, go) {
  const quantities = targets.quantities;
  if (!quantities.length) return null;
  let name = quantities[0].name;
  const bound = (label) => h('input', { type: 'number', step: 'any', 'aria-label': label, placeholder: label });
  const [low, high] = [bound('at least'), bound('at most')];
  const panel = popover('Range', h('form', {
    onsubmit: (event) => {
      event.preventDefault();
      if (low.value === '' && high.value === '') return;
      panel.open = false;
      go({ range: [...current().query.getAll('range').filter((text) => !text.startsWith(`${name}:`)), `${name}:${low.value}:${high.value}`] });
    },
  }, select('Quantity', quantities.map((quantity) => [quantity.name, quantity.title]), name, (value) => { name = value; }), low, high, h('button.button', {}, 'Apply')));
  return panel;
}

function columnChooser(columns, current, go) {
  const boxes = columns.all.map(({ key, title }) => h('input', {
    type: 'checkbox', value: key,
    onchange: () => go({ columns: boxes.filter(({ checked }) => checked).map(({ value }) => value).join(',') }),
  }));
  const element = popover('Columns', h('fieldset', {}, h('legend', {}, 'Columns'), boxes.map((box, k) => h('label', {}, box, columns.all[k].title))));
  const update = (chosen) => {
    const keys = new Set(chosen.map(({ key }) => key));
    for (const box of boxes) box.checked = keys.has(box.value);
  };
  return { element, update };
}

// A button that opens a panel; closed by Esc and by a click elsewhere.
function popover(label, content) {
  const panel = h('details.popover', {
    onkeydown: (event) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      panel.open = false;
      panel.querySelector('summary').focus();
    },
    onfocusout: (event) => {
      if (event.relatedTarget && !panel.contains(event.relatedTarget)) panel.open = false;
    },
  }, h('summary.button', {}, label), h('.panel', {}, content));
  return panel;
}

function saveTargets(run, targets, rows) {
  const names = [...new Set(targets.quantities.flatMap(({ name, error }) => [name, error]))].filter((name) => targets.hasColumn(name));
  const values = names.map((name) => targets.column(name));
  saveCsv(`targets_${run.index}`, ['target', 'id', 'name', 'class', 'verdict', 'strongest_other', ...names], rows.map((t) => [
    t, targets.ids[t], targets.name(t), targets.label(t), run.verdict(targets.verdicts[t]).name, targets.other[t] < 0 ? null : targets.other[t], ...values.map((column) => column[t]),
  ]));
}
