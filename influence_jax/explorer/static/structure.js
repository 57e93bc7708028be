// What examples do to one another: clusters of near-duplicates, and the matrix in their order.
import { decode } from './data.js';
import { LINEAR, formatCount, formatNumber } from './numbers.js';
import { button, documentPage, estimate, h, saveBlob, saveCsv, svg, thumbnail } from './dom.js';
import { chart, colors, plot } from './charts.js';
import { exampleAddress, exampleTip } from './entries.js';

const CLUSTERS_SHOWN = 24;
const NAMES_SHOWN = 4;

export async function clustersView({ run, body }) {
  const targets = await run.targets();
  const near = run.about.verdicts.find(({ name }) => name === 'near_duplicated')?.title ?? 'near-duplicated';
  return documentPage(
    body,
    run,
    'clusters',
    'Which have near-duplicates, and where?',
    `Each target with the verdict “${near}” with the example that influences it most; the surest first. Lines join those whose influence stands out; the thicker, the stronger. The ring, or the dot, has the color of the verdict.`,
    ({ clusters, total, near_duplicated: count, others }) => {
      if (!clusters.length) return h('p.state', {}, `No example has the verdict “${near}”.`);
      // Not Math.max(...): there may be more edges than a call takes arguments.
      const strongest = clusters
        .flatMap(({ edges }) => edges)
        .reduce((most, [, , value]) => Math.max(most, Math.abs(value)), 1e-12);
      const cards = (some) => some.map((cluster) => clusterCard(run, targets, cluster, strongest));
      const grid = h('.clusters', {}, cards(clusters.slice(0, CLUSTERS_SHOWN)));
      const save = async () => {
        const { ids } = await run.document('examples');
        const rows = clusters.flatMap(({ edges }, k) => edges.map(([i, j, ...rest]) => [k, ids[i], ids[j], ...rest]));
        saveCsv('clusters', ['cluster', 'example_id', 'on_id', 'influence', 'standard_error'], rows);
      };
      const head = h(
        '.section-tools',
        {},
        h(
          'span.muted',
          {},
          `${formatCount(total)} cluster${total === 1 ? '' : 's'}${total > clusters.length ? `, the surest ${clusters.length} shown` : ''}: ${formatCount(count)} examples with the verdict “${near}” and ${formatCount(others)} with another verdict, each the strongest influence on one of them.`,
        ),
        button('CSV', save),
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
function clusterCard(run, targets, cluster, strongest) {
  const { examples, edges, positions } = cluster;
  const [width, height, node] = [
    300,
    examples.length > 2 ? 220 : 90,
    run.about.thumbnails ? Math.max(22, Math.min(52, 200 / Math.sqrt(examples.length) / 1.4)) : 18,
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
    const t = targets.targetOf(example);
    const link = h(
      `a.node${run.about.thumbnails ? '' : '.dot'}`,
      {
        'data-verdict': t < 0 ? null : run.verdict(targets.verdicts[t]).name,
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
      run.about.thumbnails ? null : h('b', {}, k + 1),
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
  const named = (example) => {
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
  };
  const names = run.about.thumbnails
    ? null
    : h(
        'ol.names',
        {},
        examples.slice(0, NAMES_SHOWN).map(named),
        examples.length > NAMES_SHOWN
          ? h(
              'li.more',
              {},
              button(`${examples.length - NAMES_SHOWN} more`, (event) =>
                event.target.closest('li').replaceWith(...examples.slice(NAMES_SHOWN).map(named)),
              ),
            )
          : null,
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
    h('.graph', { style: { aspectRatio: `${width} / ${height}` } }, drawing, nodes),
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
  const [pairs, { ids }] = await Promise.all([run.document('pairs'), run.document('examples')]);
  const listed = listedPairs(run, pairs);
  return documentPage(
    body,
    run,
    'matrix',
    'Influence matrix',
    'Rows are examples, columns are targets, in the order of clusters. Blue lowers the loss, orange raises it. Drag to zoom or move; click an entry for its target.',
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
            bounds: true,
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
                h('span', {}, Number.isNaN(value) ? 'not stored' : inWords(run, targets, listed, examples[at.row], target, value)),
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
          for (const boundary of clusterEnds(found.boundaries ?? [])) {
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
          ['example_id', ...columns.map((target) => targets.ids[target])],
          examples.map((example, row) => [ids[example], ...values.subarray(row * width, (row + 1) * width)]),
        );
      element.classList.add('square');
      return [
        h(
          '.section-tools',
          {},
          h('span.scale', {}, `≤ ${formatNumber(-limit)}`, h('i'), `≥ ${formatNumber(limit)} ${run.about.unit}`),
          button('CSV', save),
        ),
        element,
      ];
    },
  );
}

// Significant pairs by example and target: their errors.
function listedPairs(run, { examples, targets, columns }) {
  const [rows, across, errors] = [examples, targets, columns.error].map(decode);
  return new Map(Array.from(rows, (example, k) => [example * run.about.targets + across[k], errors[k]]));
}

// An entry with its error: that of the pair or its own where known, else that of an entry of noise.
function inWords(run, targets, listed, example, t, value) {
  if (targets.example[t] === example)
    return [estimate(value, targets.column('self_influence_error')?.[t]), ` ${run.about.unit}, its own`];
  const error = listed.get(example * run.about.targets + t);
  const noise = targets.column('null_standard_error')?.[t];
  return [
    estimate(value, error ?? noise),
    ` ${run.about.unit}${error === undefined ? ' (error of a typical entry here), is no significant pair' : ', a significant pair'}`,
  ];
}

// Boundaries beside a cluster of more than one: those between examples alone would gray the picture.
function clusterEnds(boundaries) {
  return boundaries.filter((end, k) => end - boundaries[k - 1] > 1 || boundaries[k + 1] - end > 1);
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
