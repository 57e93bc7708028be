// The first page: all targets in one table, to sort, search and filter.
import { Request } from './data.js';
import { formatCount } from './numbers.js';
import { announce, button, h, saveCsv } from './dom.js';
import { VirtualTable } from './table.js';
import { Columns } from './columns.js';
import { columnChooser, filterBar } from './filters.js';

const QUESTION = 'Which are memorized, because of which others, how sure?';

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
      h(
        'p',
        {},
        request.q ? `No target matches “${request.q}”` : 'No target passes these filters',
        request.q && request.isFiltered ? ' and the filters.' : '.',
      ),
      button('Clear search and filters', () => go({ q: null, verdict: null, class: null, range: null, lasso: null })),
    ],
  });
  const go = (changes) => {
    location.hash = run.address('targets', '', request.with(changes));
  };

  const count = h('span.count', { role: 'status' });
  const filters = filterBar(
    run,
    targets,
    () => request,
    go,
    (changes) => replace(request.with(changes)),
  );
  const chooser = columnChooser(columns, () => request, go);
  const csv = button('CSV', () => saveTargets(run, targets, rows), { title: 'Save these rows as CSV, every column' });

  body.classList.add('full');
  body.append(
    introduction(run),
    h('.filters', {}, filters.element, h('.actions', {}, count, chooser.element, csv)),
    filters.chips,
    table.element,
  );

  function update(nextQuery, keepPlace = false) {
    if (!keepPlace) places.delete(run.index);
    request = new Request(nextQuery);
    rows = targets.select(request);
    const chosen = columns.chosen(request.columns);
    const main = chosen.some(({ key, numeric }) => numeric && key === request.sort)
      ? request.sort
      : (chosen.find(({ numeric }) => numeric)?.key ?? '');
    table.setColumns(chosen, request.sort, request.descending, main);
    table.setRows(rows, { keepPlace });
    filters.update(request);
    chooser.update(chosen);
    const all = formatCount(targets.length);
    count.textContent =
      rows.length === targets.length ? `${all} targets` : `${formatCount(rows.length)} of ${all} targets`;
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
    about.members && `${formatCount(about.members)} members`,
    `${formatCount(about.examples)} examples`,
    about.method?.title && `${about.method.title.toLowerCase()}`,
    about.unit && `influence in ${about.unit}`,
  ].filter(Boolean);
  const details = [
    ...(about.caveats ?? []).map((text) => h('li.caveat', {}, text)),
    ...(about.notes ?? []).map((text) => h('li', {}, text)),
  ];
  const settings = (about.facts ?? []).map(([name, value]) => [h('dt', {}, name), h('dd', {}, String(value))]);
  const caveats = (about.caveats ?? []).length;
  return h(
    '.intro',
    {},
    h('h1', {}, QUESTION),
    h('p.how', {}, `${facts.join(' · ')}. Errors, and whiskers, are one standard error; in gray: what does not stand out from noise.`),
    details.length || settings.length
      ? h(
          'details.about',
          {},
          h(
            'summary',
            {},
            'About this run',
            caveats ? h('span.badge', {}, caveats === 1 ? '1 caveat' : `${caveats} caveats`) : null,
          ),
          about.method?.description ? h('p', {}, about.method.description) : null,
          details.length ? h('ul', {}, details) : null,
          settings.length ? h('dl', {}, settings) : null,
        )
      : null,
  );
}

function saveTargets(run, targets, rows) {
  const names = [...new Set(targets.quantities.flatMap(({ name, error }) => [name, error]))].filter((name) =>
    targets.hasColumn(name),
  );
  const values = names.map((name) => targets.column(name));
  saveCsv(
    `targets_${run.index}`,
    ['target', 'id', 'name', 'class', 'verdict', 'strongest_other', ...names],
    rows.map((t) => [
      t,
      targets.ids[t],
      targets.name(t),
      targets.label(t),
      run.verdict(targets.verdicts[t]).name,
      targets.other[t] < 0 ? null : targets.other[t],
      ...values.map((column) => column[t]),
    ]),
  );
}
