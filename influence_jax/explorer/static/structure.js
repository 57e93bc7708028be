// What examples do to one another: clusters of near-duplicates, and the matrix in their order.
import { decode } from './data.js';
import { LINEAR, formatCount, formatNumber } from './numbers.js';
import { button, documentPage, estimate, h, saveBlob, saveCsv, svg, thumbnail } from './dom.js';
import { chart, colors, plot } from './charts.js';
import { exampleAddress, exampleTip } from './entries.js';

const CLUSTERS_SHOWN = 24;

export async function clustersView({ run, body }) {
  await run.targets();
  return documentPage(
    body,
    run,
    'clusters',
    'Clusters of near-duplicates',
    'Examples that do the same to each other: lines join those whose influence stands out; the thicker, the stronger.',
    ({ clusters, total }) => {
      if (!clusters.length) return h('p.state', {}, 'No pair of examples stands out as near-duplicates.');
      const strongest = Math.max(
        ...clusters.flatMap(({ edges }) => edges.map(([, , value]) => Math.abs(value))),
        1e-12,
      );
      const cards = (some) => some.map((cluster) => clusterCard(run, cluster, strongest));
      const grid = h('.clusters', {}, cards(clusters.slice(0, CLUSTERS_SHOWN)));
      const rows = clusters.flatMap(({ edges }, k) => edges.map((edge) => [k, ...edge]));
      const head = h(
        '.section-tools',
        {},
        h(
          'span.muted',
          {},
          `${formatCount(total ?? clusters.length)} clusters${total > clusters.length ? `, the surest ${clusters.length} shown` : ''}`,
        ),
        button('CSV', () => saveCsv('clusters', ['cluster', 'example', 'other', 'influence', 'standard_error'], rows)),
      );
      if (clusters.length <= CLUSTERS_SHOWN) return [head, grid];
      let shown = CLUSTERS_SHOWN;
      const more = button('More', () => {
        grid.append(...cards(clusters.slice(shown, shown + CLUSTERS_SHOWN)));
        shown += CLUSTERS_SHOWN;
        if (shown >= clusters.length) more.remove();
      });
      return [head, grid, more];
    },
  );
}

// A cluster as a graph: nodes are links with pictures, or dots with names.
function clusterCard(run, cluster, strongest) {
  const { examples, edges, positions } = cluster;
  const [width, height, node] = [
    300,
    220,
    run.about.thumbnails ? Math.max(22, Math.min(52, 200 / Math.sqrt(examples.length) / 1.4)) : 12,
  ];
  const place = placed(positions, examples.length, width, height, node / 2 + 8);
  const at = new Map(examples.map((example, k) => [example, place[k]]));
  const lines = edges
    .filter(([i, j]) => at.has(i) && at.has(j))
    .map(([i, j, value, error]) => {
      const [[x1, y1], [x2, y2]] = [at.get(i), at.get(j)];
      const share = Math.sqrt(Math.abs(value) / strongest);
      return svg(
        `line.edge${value < 0 ? '.negative' : ''}`,
        { x1, y1, x2, y2, 'stroke-width': (0.8 + 5 * share).toFixed(2) },
        svg('title', {}, `${formatNumber(value)}${error ? ` ± ${formatNumber(error)}` : ''}`),
      );
    });
  const nodes = examples.map((example, k) => {
    const [left, top] = place[k];
    const name = run.knownName(example) ?? `example ${example}`;
    const link = h(
      `a.node${run.about.thumbnails ? '' : '.dot'}`,
      {
        href: exampleAddress(run, example),
        title: name.slice(0, 300),
        'aria-label': name.slice(0, 300),
        style: {
          left: `${(100 * left) / width}%`,
          top: `${(100 * top) / height}%`,
          width: `${node}px`,
          height: `${node}px`,
        },
      },
      thumbnail(run, example, Math.round(node)),
    );
    run.exampleName(example).then(
      (text) => {
        link.title = text.slice(0, 300);
        link.setAttribute('aria-label', link.title);
      },
      () => {},
    );
    return link;
  });
  const best = edges.reduce((a, b) => (Math.abs(b[2]) > Math.abs(a?.[2] ?? 0) ? b : a), null);
  const names = run.about.thumbnails
    ? null
    : h(
        'ul.names',
        {},
        examples.slice(0, 4).map((example) => {
          const link = h(
            'a',
            { href: exampleAddress(run, example) },
            (run.knownName(example) ?? `example ${example}`).slice(0, 120),
          );
          run.exampleName(example).then(
            (text) => {
              link.textContent = text.slice(0, 120);
            },
            () => {},
          );
          return h('li', {}, link);
        }),
        examples.length > 4 ? h('li.muted', {}, `and ${examples.length - 4} more`) : null,
      );
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' }, lines);
  const save = button(
    'SVG',
    () =>
      saveGraph(
        drawing,
        examples.map((example, k) => [run.knownName(example) ?? `example ${example}`, place[k]]),
      ),
    { title: 'Save as SVG' },
  );
  return h(
    'figure.card.cluster',
    {},
    h('.graph', {}, drawing, nodes),
    names,
    h(
      'figcaption',
      {},
      h('.chart-tools', {}, save),
      `${formatCount(cluster.size ?? examples.length)} ${run.about.noun}s`,
      best ? [' · strongest ', estimate(best[2], best[3])] : null,
    ),
  );
}

// Saves a graph with names at its nodes; colors as they are now.
function saveGraph(drawing, nodes) {
  const theme = colors();
  const copy = drawing.cloneNode(true);
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  for (const line of copy.querySelectorAll('line'))
    line.setAttribute('stroke', line.classList.contains('negative') ? theme.negative : theme.positive);
  for (const [name, [x, y]] of nodes) {
    copy.append(
      svg('circle', { cx: x, cy: y, r: 4, fill: theme.text }),
      svg(
        'text',
        { x, y: y - 7, 'font-size': 7, 'text-anchor': 'middle', 'font-family': 'sans-serif', fill: theme.text },
        name.slice(0, 40),
      ),
    );
  }
  saveBlob('cluster.svg', new Blob([new XMLSerializer().serializeToString(copy)], { type: 'image/svg+xml' }));
}

// Positions stretched over the drawing; around a circle where the document has none.
function placed(positions, count, width, height, margin) {
  const given =
    positions?.length === count
      ? positions
      : Array.from({ length: count }, (_, k) => [
          Math.cos((2 * Math.PI * k) / count),
          Math.sin((2 * Math.PI * k) / count),
        ]);
  const fit = (k, length) => {
    const values = given.map((position) => position[k]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return (value) =>
      high - low < 1e-9 ? length / 2 : margin + ((value - low) / (high - low)) * (length - 2 * margin);
  };
  const [x, y] = [fit(0, width), fit(1, height)];
  return given.map(([a, b]) => [x(a), y(b)]);
}

export async function matrixView({ run, body }) {
  const targets = await run.targets();
  run.exampleName(0).catch(() => {});
  return documentPage(
    body,
    run,
    'matrix',
    'Influence matrix',
    'Rows are examples, columns are targets, in the order of clusters. Blue lowers the loss, orange raises it. Scroll to zoom, drag to move; click an entry for its target.',
    (found) => {
      const values = decode(found.values);
      const { examples, targets: columns } = found;
      if (!examples.length || !columns.length) return h('p.state', {}, 'No entry of the matrix is stored.');
      const limit = found.limit || 1;
      const [rows, width] = [examples.length, columns.length];
      const entry = (x, y) => ({ row: rows - 1 - Math.floor(y), column: Math.floor(x) });
      const valid = ({ row, column }) => row >= 0 && row < rows && column >= 0 && column < width;
      const element = chart({
        name: 'matrix',
        height: 700,
        alt: `Influence of ${rows} examples on ${width} targets.`,
        build: (Bokeh, theme) => {
          const bare = { scale: LINEAR, ticks: [] };
          const figure = plot(Bokeh, theme, {
            x: { ...bare, title: 'Targets', range: [0, width] },
            y: { ...bare, title: 'Examples', range: [0, rows] },
            drag: 'pan',
            wheel: true,
            hover: (x, y) => {
              const at = entry(x, y);
              if (!valid(at)) return null;
              const value = values[at.row * width + at.column];
              const target = columns[at.column];
              return h(
                '.matrix-tip',
                {},
                exampleTip(run, examples[at.row]),
                h('span.muted', {}, 'on'),
                h(
                  '.tip-row',
                  {},
                  thumbnail(run, targets.example[target], 48),
                  h('b', {}, targets.name(target).slice(0, 120)),
                ),
                h('span', {}, Number.isNaN(value) ? 'not stored' : `${formatNumber(value)} ${run.about.unit}`),
              );
            },
            tap: (x, y) => {
              const at = entry(x, y);
              if (valid(at)) location.hash = run.address('target', columns[at.column]);
            },
          });
          const flipped = new Float32Array(values.length); // the first row is drawn lowest
          for (let row = 0; row < rows; row++)
            flipped.set(values.subarray((rows - 1 - row) * width, (rows - row) * width), row * width);
          const image = Bokeh.require('core/util/ndarray').ndarray(flipped.buffer, {
            dtype: 'float32',
            shape: [rows, width],
          });
          figure.image({
            image: [image],
            x: 0,
            y: 0,
            dw: width,
            dh: rows,
            color_mapper: new Bokeh.LinearColorMapper({
              palette: diverging(theme),
              low: -limit,
              high: limit,
              nan_color: 'rgba(0,0,0,0)',
            }),
          });
          for (const boundary of found.boundaries ?? []) {
            for (const [dimension, location] of [
              ['height', boundary],
              ['width', rows - boundary],
            ])
              figure.add_layout(
                new Bokeh.Span({ location, dimension, line_color: theme.line, line_width: 1, line_alpha: 0.9 }),
              );
          }
          return figure;
        },
      });
      const save = () =>
        saveCsv(
          'matrix',
          ['example', ...columns],
          examples.map((example, row) => [example, ...values.subarray(row * width, (row + 1) * width)]),
        );
      element.classList.add('square');
      return [
        h(
          '.section-tools',
          {},
          h('span.scale', {}, formatNumber(-limit), h('i'), formatNumber(limit), ` ${run.about.unit}`),
          button('CSV', save),
        ),
        element,
      ];
    },
  );
}

// 255 colors from negative to positive through the card's own, as '#rrggbb'.
function diverging({ negative, card, positive }) {
  const channels = (color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16));
  const [from, middle, to] = [negative, card, positive].map(channels);
  return Array.from({ length: 255 }, (_, k) => {
    const share = Math.abs(k - 127) / 127;
    const end = k < 127 ? from : to;
    return `#${middle
      .map((value, c) =>
        Math.round(value + (end[c] - value) * share)
          .toString(16)
          .padStart(2, '0'),
      )
      .join('')}`;
  });
}
