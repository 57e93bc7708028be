// Two runs beside each other: which targets moved beyond their errors, or changed their verdict.
import { decode, fetchDocument } from './data.js';
import { columnDecimals, formatCount, formatNumber } from './numbers.js';
import { button, estimate, h, saveCsv, select, verdictChip } from './dom.js';
import { chart, legend, nearest, paddedRange, plot } from './charts.js';
import { VirtualTable } from './table.js';
import { recordCell } from './columns.js';
import { automaticScale } from './map.js';
import { PairsOfBoth } from './compare_pairs.js';

export async function compareView({ run, body, index, openRun, query, replace }) {
  const found = await fetchDocument('compare.json');
  const other = await openRun(found.runs[1]);
  const names = found.runs.map((place, k) => `${index.runs[place].name} (${found.members[k]})`);
  const [targets, others] = await Promise.all([run.targets(), other.targets()]);
  const positions = found.target.map(decode);
  const columns = Object.fromEntries(Object.entries(found.columns).map(([name, column]) => [name, decode(column)]));
  const moved = decode(found.moved.self_influence);
  const count = moved.reduce((sum, value) => sum + value, 0);
  const all = [...found.ids.keys()];
  const codes = all.map((k) => [targets.verdicts[positions[0][k]], others.verdicts[positions[1][k]]]);
  const state = (text) => {
    const parameters = new URLSearchParams(text);
    const sort = parameters.get('sort') ?? '-z';
    return {
      parameters,
      sort: sort.replace(/^-/, ''),
      descending: sort.startsWith('-'),
      only: parameters.get('only') === 'moved',
      verdicts: parameters.get('verdicts') ?? '',
      q: (parameters.get('q') ?? '').toLowerCase(),
    };
  };
  let current = state(query);
  const change = (changes) => {
    const parameters = new URLSearchParams(current.parameters);
    for (const [name, value] of Object.entries(changes)) {
      if (value) parameters.set(name, value);
      else parameters.delete(name);
    }
    replace(parameters);
  };
  // What a page that is opened from here needs to come back.
  const wayBack = () => new URLSearchParams({ compare: String(current.parameters) });
  const table = new VirtualTable({
    label: 'Targets of both runs',
    address: (k) => run.address('target', positions[0][k], wayBack()),
    sort: (key) => change({ sort: current.sort === key && current.descending ? key : `-${key}` }),
    empty: () => h('p', {}, 'No target passes.'),
  });
  const unit = run.about.unit ? ` (${run.about.unit})` : '';
  const number = (name, title, errors, width = 140) => {
    const decimals = columnDecimals([...columns[name]], errors ? [...columns[errors]] : null);
    return {
      key: name,
      title,
      numeric: true,
      width: [width, 0],
      cell: (k) =>
        errors ? estimate(columns[name][k], columns[errors][k], decimals) : formatNumber(columns[name][k], decimals),
    };
  };
  const shown = [
    { key: 'id', title: 'Target', width: [230, 2], cell: (k) => recordCell(run, targets, positions[0][k], wayBack()) },
    number('difference', 'Difference', 'error', 170),
    number('z', 'In errors', null, 110),
    number('self_influence_0', names[0], 'self_influence_error_0', 190),
    number('self_influence_1', names[1], 'self_influence_error_1', 190),
    {
      key: 'verdicts',
      title: 'Verdicts',
      sortable: false,
      width: [310, 0],
      cell: (k) =>
        h(
          'span',
          {},
          verdictChip(run.verdict(targets.verdicts[positions[0][k]])),
          ' → ',
          verdictChip(other.verdict(others.verdicts[positions[1][k]])),
        ),
    },
  ];
  const search = h('input', {
    type: 'search',
    placeholder: 'Search id or name  ( / )',
    'aria-label': 'Search id or name',
    value: current.parameters.get('q') ?? '',
    oninput: () => change({ q: search.value }),
  });
  const counted = h('span.count', { role: 'status' });
  const columnNames = Object.keys(columns);
  let rows = all;
  const save = () =>
    saveCsv(
      'compare',
      ['id', 'name', 'target_0', 'target_1', 'verdict_0', 'verdict_1', 'moved', ...columnNames],
      rows.map((k) => [
        found.ids[k],
        targets.name(positions[0][k]),
        positions[0][k],
        positions[1][k],
        run.verdict(codes[k][0]).name,
        other.verdict(codes[k][1]).name,
        moved[k],
        ...columnNames.map((name) => columns[name][k]),
      ]),
    );
  const pairs = await PairsOfBoth.of({ runs: [run, other], pairs: found.pairs, names, change, wayBack });
  body.append(
    h('h1', {}, found.tested ? 'Which targets moved beyond their errors?' : 'Two results of the same members'),
    h(
      'p.how',
      {},
      `First: ${names[0]}. Second: ${names[1]}. Difference: second minus first. `,
      found.tested
        ? `Self-influence of ${formatCount(count)} of ${formatCount(all.length)} targets moved (false discovery rate ${formatNumber(100 * found.level)} %).`
        : `${formatCount(all.length)} targets are in both.`,
    ),
    ...(found.caveats ?? []).map((text) => h('p.note', {}, text)),
    found.differences?.length
      ? h(
          '.how',
          {},
          'Settings that differ:',
          h(
            'ul',
            {},
            found.differences.map((text) => h('li', {}, text)),
          ),
        )
      : '',
    medianErrors(found.median_errors, run.about.unit),
    verdictTable(codes, run.about.verdicts, other.about.verdicts, names, (cell) =>
      change({ verdicts: cell === current.verdicts ? null : cell }),
    ),
    found.tested
      ? legend([
          ['var(--class-7)', 'within the errors'],
          ['var(--accent)', 'moved'],
        ])
      : '',
    scatter(
      run,
      targets,
      positions,
      columns,
      moved,
      names.map((name) => `Self-influence, ${name}${unit}`),
      wayBack,
    ),
    h(
      '.filters',
      {},
      h(
        '.filter-controls',
        {},
        search,
        select(
          'Show',
          [
            ['', 'all'],
            ['moved', 'those that moved'],
          ],
          current.only ? 'moved' : '',
          (value) => change({ only: value }),
        ),
      ),
      h('.actions', {}, counted, button('CSV', save)),
    ),
    table.element,
    pairs.section,
  );
  table.element.classList.add('short');

  function update(text) {
    current = state(text);
    rows = all.filter(
      (k) =>
        (!current.only || moved[k]) &&
        (!current.verdicts || codes[k].join('-') === current.verdicts) &&
        (!current.q || `${found.ids[k]}\n${targets.name(positions[0][k])}`.toLowerCase().includes(current.q)),
    );
    const values = current.sort === 'id' ? found.ids : columns[current.sort];
    const size = (k) => (current.sort === 'z' || current.sort === 'difference' ? Math.abs(values[k]) : values[k]);
    const sign = current.descending ? -1 : 1;
    if (values)
      rows.sort((a, b) => {
        const [p, q] = [size(a), size(b)];
        return Number.isNaN(p) - Number.isNaN(q) || (p === q ? a - b : sign * (p < q ? -1 : 1));
      });
    counted.textContent = `${formatCount(rows.length)} targets`;
    for (const cell of body.querySelectorAll('[data-cell]'))
      cell.setAttribute('aria-pressed', String(cell.dataset.cell === current.verdicts));
    table.setColumns(shown, current.sort, current.descending, 'difference');
    table.setRows(rows);
    pairs.update(current.parameters);
  }
  update(query);
  return {
    update,
    keys: {
      ...table.keys,
      Escape: () => {
        location.hash = '#/';
      },
    },
    leave: () => {
      table.leave();
      pairs.leave();
    },
  };
}

// How much surer the one is than the other: of self-influence, and of any other entry.
function medianErrors(errors, unit) {
  const words = [
    ['self-influence', errors.self_influence],
    ['an entry without influence', errors.entry],
  ]
    .filter(([, values]) => values.every(Number.isFinite))
    .map(
      ([what, [first, second]]) =>
        `of ${what} ${formatNumber(first)} and ${formatNumber(second)}${unit ? ` ${unit}` : ''} (ratio ${formatNumber(first / second, 2)})`,
    );
  return words.length ? h('p.how', {}, `Median standard error, first and second: ${words.join('; ')}.`) : '';
}

// How many targets go from which verdict to which; a cell shows them in the table below.
function verdictTable(codes, first, second, names, choose) {
  const counts = first.map(() => second.map(() => 0));
  for (const [from, to] of codes) counts[from][to]++;
  const cell = (count, key) =>
    h(
      'td',
      {},
      count ? button(formatCount(count), () => choose(key), { 'data-cell': key, 'aria-pressed': 'false' }) : '–',
    );
  return h(
    '.card.scroll.verdicts',
    {},
    h(
      'table',
      {},
      h('caption', {}, `Verdicts: rows of ${names[0]}, columns of ${names[1]}`),
      h(
        'thead',
        {},
        h('tr', {}, h('td'), second.map((verdict) => h('th', { scope: 'col' }, verdictChip(verdict)))),
      ),
      h(
        'tbody',
        {},
        first.map((verdict, from) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, verdictChip(verdict)),
            counts[from].map((count, to) => cell(count, `${from}-${to}`)),
          ),
        ),
      ),
    ),
  );
}

function scatter(run, targets, positions, columns, moved, titles, wayBack) {
  const [first, second] = [columns.self_influence_0, columns.self_influence_1];
  const scale = automaticScale([...first, ...second]);
  const [xs, ys] = [first, second].map((column) => Array.from(column, (value) => scale.forward(value)));
  const range = paddedRange([...xs, ...ys]);
  return chart({
    name: 'compare',
    height: 420,
    alt: `Self-influence in both runs of ${formatCount(xs.length)} targets.`,
    build: (Bokeh, theme) => {
      const figure = plot(Bokeh, theme, {
        x: { title: titles[0], scale, range },
        y: { title: titles[1], scale, range },
        drag: 'box_zoom',
        wheel: true,
        hover: (x, y, near) => {
          const k = nearest(xs, ys, near);
          return k < 0
            ? null
            : h(
                'span',
                {},
                h('b', {}, targets.name(positions[0][k]).slice(0, 120)),
                h('br'),
                estimate(columns.difference[k], columns.error[k]),
                ' apart',
              );
        },
        tap: (x, y, near) => {
          const k = nearest(xs, ys, near, 8);
          if (k >= 0) location.hash = run.address('target', positions[0][k], wayBack());
        },
      });
      figure.line(range, range, { line_color: theme.muted, line_dash: [4, 4], line_width: 1 });
      for (const [flag, color] of [
        [0, theme.classes[7]],
        [1, theme.positive],
      ]) {
        const chosen = [...xs.keys()].filter((k) => moved[k] === flag);
        figure.scatter(
          chosen.map((k) => xs[k]),
          chosen.map((k) => ys[k]),
          { size: xs.length > 5000 ? 3.5 : 5.5, fill_color: color, fill_alpha: 0.6, line_color: null },
        );
      }
      return figure;
    },
  });
}
