// Any two quantities of all targets; a lasso selects those that the table shows.
import { Request, formatLasso, insidePolygon } from './data.js';
import { Scale, formatCount, formatNumber, quantile } from './numbers.js';
import { announce, button, estimate, h, select, thumbnail } from './dom.js';
import { chart, legend, nearest, paddedRange, plot } from './charts.js';
import { VirtualTable } from './table.js';
import { Columns } from './columns.js';

const COLORED_CLASSES = 7;

export async function mapView({ run, body, query, replace }) {
  const targets = await run.targets();
  const { quantities } = targets;
  if (quantities.length < 2) throw new Error('There are fewer than two quantities to draw.');
  const first = (names, otherwise) => names.find((name) => targets.hasColumn(name)) ?? otherwise;
  let request = new Request(query);
  const chosen = () => ({
    x: first([request.query.get('x')], first(['margin', 'mean_loss'], quantities[1].name)),
    y: first([request.query.get('y')], quantities[0].name),
    color: request.query.get('color') === 'class' ? 'class' : 'verdict',
  });
  const host = h('div');
  const status = h('.selection');
  const table = new VirtualTable({
    label: 'Selected targets',
    address: (t) => run.address('target', t, request.query),
    empty: () => [],
    sort: (key) => change({ sort: request.sort === key && request.descending ? key : `-${key}` }),
  });
  const columns = new Columns(run, targets);
  const change = (changes) => replace(request.with(changes));
  const titles = quantities.map(({ name, title }) => [name, title]);
  const { x, y, color } = chosen();
  const controls = h(
    '.filters',
    {},
    h(
      '.filter-controls',
      {},
      select('Across', titles, x, (value) => change({ x: value, lasso: null })),
      select('Up', titles, y, (value) => change({ y: value, lasso: null })),
      run.about.classes?.length > 1
        ? select(
            'Color',
            [
              ['verdict', 'verdict'],
              ['class', 'class'],
            ],
            color,
            (value) => change({ color: value }),
          )
        : null,
    ),
  );
  body.append(
    h('h1', {}, 'Map'),
    h(
      'p.how',
      {},
      'Each point is a target. Draw around points to see them in the table below; point at one for its name, click for its page.',
    ),
    controls,
    host,
    status,
    table.element,
  );
  table.element.classList.add('short');
  let drawn = '';
  let zoomed = null; // ranges in view when the lasso was drawn, to be kept

  function update(nextQuery) {
    request = new Request(nextQuery);
    const state = chosen();
    const key = JSON.stringify([state, [...request.with({ lasso: null, sort: null })]]);
    if (key !== drawn) zoomed = null;
    drawn = key;
    host.replaceChildren(
      ...mapChart(run, targets, request, state, zoomed, (lasso, ranges) => {
        zoomed = ranges;
        change({ lasso });
      }),
    );
    const rows = request.lasso ? targets.select(request) : [];
    table.element.hidden = !request.lasso;
    if (request.lasso) {
      const shown = columns.chosen(request.columns);
      table.setColumns(shown, request.sort, request.descending, 'self_influence');
      table.setRows(rows);
    }
    status.replaceChildren(
      ...(request.lasso
        ? [
            h('b', { role: 'status' }, `${formatCount(rows.length)} selected`),
            h(
              'a.button',
              { href: run.address('targets', '', request.with({ x: null, y: null, color: null })) },
              'Open in the table',
            ),
            button('Clear', () => change({ lasso: null })),
          ]
        : []),
    );
    if (request.lasso) announce(`${rows.length} selected`);
  }
  update(query);
  return {
    update,
    keys: {
      Escape: () => {
        if (request.lasso) change({ lasso: null });
        else location.hash = run.address('targets');
      },
    },
    leave: () => table.leave(),
  };
}

// Logarithmic for positive values over decades, asinh where both signs have tails, else linear.
export function automaticScale(values) {
  const sizes = Array.from(values, Math.abs).filter((value) => value > 0);
  const middle = quantile(sizes, 0.5);
  if (!(quantile(sizes, 0.998) > 30 * middle)) return new Scale('linear');
  return quantile(values, 0) > 0 ? new Scale('log') : new Scale('asinh', middle);
}

function mapChart(run, targets, request, { x, y, color }, zoomed, onLasso) {
  const unfiltered = new Request(request.with({ lasso: null, sort: null }));
  const rows = targets
    .select(unfiltered)
    .filter((t) => Number.isFinite(targets.column(x)[t]) && Number.isFinite(targets.column(y)[t]));
  const scales = [x, y].map((name) => automaticScale(rows.map((t) => targets.column(name)[t])));
  const points = [x, y].map((name, k) => rows.map((t) => scales[k].forward(targets.column(name)[t])));
  const groups = colorGroups(run, targets, rows, color);
  const [across, up] = [x, y].map((name) => run.quantities.get(name));
  const axis = ({ title, unit }) => `${title}${unit ? ` (${unit})` : ''}`;
  const { lasso } = request;
  const isShown = lasso && lasso.x === x && lasso.y === y;
  const element = chart({
    name: `map_${x}_${y}`,
    height: 460,
    alt: `${up.title} against ${across.title} of ${formatCount(rows.length)} targets.`,
    build: (Bokeh, theme) => {
      const figure = plot(Bokeh, theme, {
        x: { title: axis(across), scale: scales[0], range: paddedRange(points[0]), count: 8 },
        y: { title: axis(up), scale: scales[1], range: paddedRange(points[1]), count: 7 },
        drag: 'lasso',
        wheel: true,
        lasso: (polygon) =>
          onLasso(
            formatLasso({ x, y, polygon, scales }),
            [figure.x_range, figure.y_range].map(({ start, end }) => ({ start, end })),
          ),
        hover: (px, py, near) => {
          const k = nearest(points[0], points[1], near);
          return k < 0 ? null : pointTip(run, targets, rows[k], [across, up]);
        },
        tap: (px, py, near) => {
          const k = nearest(points[0], points[1], near, 8);
          if (k >= 0) location.hash = run.address('target', rows[k], request.query);
        },
      });
      zoomed?.forEach((range, k) => [figure.x_range, figure.y_range][k].setv(range));
      const size = rows.length > 5000 ? 3 : rows.length > 800 ? 4.5 : 6;
      const alpha = rows.length > 5000 ? 0.45 : 0.7;
      const inside = (k) => !isShown || insidePolygon(points[0][k], points[1][k], lasso.polygon);
      for (const [selected, opacity] of [
        [false, 0.12],
        [true, alpha],
      ]) {
        groups.members.forEach((members, group) => {
          const some = members.filter((k) => inside(k) === selected);
          if (!some.length) return;
          figure.scatter(
            some.map((k) => points[0][k]),
            some.map((k) => points[1][k]),
            { size, marker: 'circle', fill_color: groups.color(theme, group), fill_alpha: opacity, line_color: null },
          );
        });
      }
      return figure;
    },
  });
  return [
    legend(
      groups.titles
        .map((title, group) => [groups.css(group), title])
        .filter((_, group) => groups.members[group].length),
    ),
    element,
  ];
}

const VERDICT_COLORS = { unique: 'unique', near_duplicated: 'near_duplicated', influenced: 'class-6', unlearned: 'class-4', not_memorized: 'class-5' };

function colorGroups(run, targets, rows, color) {
  const split = (codes, count) => {
    const members = Array.from({ length: count }, () => []);
    rows.forEach((t, k) => members[codes(t)].push(k));
    return members;
  };
  if (color === 'verdict') {
    const { verdicts } = run.about;
    const slot = (group) => VERDICT_COLORS[verdicts[group].name] ?? 'class-7';
    return {
      titles: verdicts.map(({ title }) => title),
      members: split((t) => targets.verdicts[t], verdicts.length),
      color: (theme, group) => theme[slot(group)],
      css: (group) => `var(--${slot(group)})`,
    };
  }
  const { classes } = run.about;
  const sizes = classes.map(() => 0);
  for (const t of rows) if (targets.labels[t] >= 0) sizes[targets.labels[t]]++;
  const largest = [...classes.keys()].sort((a, b) => sizes[b] - sizes[a]).slice(0, COLORED_CLASSES);
  const slots = new Map(largest.map((label, slot) => [label, slot]));
  return {
    titles: [...largest.map((label) => classes[label]), 'others'],
    members: split((t) => slots.get(targets.labels[t]) ?? largest.length, largest.length + 1),
    color: (theme, group) => theme.classes[group === largest.length ? 7 : group],
    css: (group) => `var(--class-${group === largest.length ? 7 : group})`,
  };
}

function pointTip(run, targets, t, quantities) {
  const numbers = quantities.map(({ name, title, error }) => [
    h('br'),
    `${title} `,
    targets.hasColumn(error)
      ? estimate(targets.column(name)[t], targets.column(error)[t])
      : formatNumber(targets.column(name)[t]),
  ]);
  return h(
    '.tip-row',
    {},
    thumbnail(run, targets.example[t], 48),
    h('span', {}, h('b', {}, targets.name(t).slice(0, 120)), numbers),
  );
}
