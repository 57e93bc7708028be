// What is known of the run as a whole: clusters, matrix, membership, convergence, leaderboard.
import { decode } from './data.js';
import { Scale, formatCount, formatNumber } from './numbers.js';
import { button, estimate, fillLater, h, saveBlob, saveCsv, section, svg, thumbnail } from './dom.js';
import { chart, colors, legend, nearest, paddedRange, plot } from './charts.js';
import { exampleAddress, exampleTip } from './target.js';

const linear = new Scale('linear');
const CLUSTERS_SHOWN = 24;

function page(body, run, name, heading, how, build) {
  const host = h('div');
  body.append(h('h1', {}, heading), h('p.how', {}, how), host);
  fillLater(host, run.document(name), build);
  return { keys: { Escape: () => { location.hash = run.address('targets'); } } };
}

export async function clustersView({ run, body }) {
  await run.targets();
  return page(body, run, 'clusters', 'Clusters of near-duplicates', 'Examples that do the same to each other: lines join those whose influence stands out; the thicker, the stronger.', ({ clusters, total }) => {
    if (!clusters.length) return h('p.state', {}, 'No pair of examples stands out as near-duplicates.');
    const strongest = Math.max(...clusters.flatMap(({ edges }) => edges.map(([, , value]) => Math.abs(value))), 1e-12);
    const cards = (some) => some.map((cluster) => clusterCard(run, cluster, strongest));
    const grid = h('.clusters', {}, cards(clusters.slice(0, CLUSTERS_SHOWN)));
    const rows = clusters.flatMap(({ edges }, k) => edges.map((edge) => [k, ...edge]));
    const head = h('.section-tools', {}, h('span.muted', {}, `${formatCount(total ?? clusters.length)} clusters${total > clusters.length ? `, the surest ${clusters.length} shown` : ''}`), button('CSV', () => saveCsv('clusters', ['cluster', 'example', 'other', 'influence', 'standard_error'], rows)));
    if (clusters.length <= CLUSTERS_SHOWN) return [head, grid];
    let shown = CLUSTERS_SHOWN;
    const more = button('More', () => {
      grid.append(...cards(clusters.slice(shown, shown + CLUSTERS_SHOWN)));
      shown += CLUSTERS_SHOWN;
      if (shown >= clusters.length) more.remove();
    });
    return [head, grid, more];
  });
}

// A cluster as a graph: nodes are links with pictures, or dots with names.
function clusterCard(run, cluster, strongest) {
  const { examples, edges, positions } = cluster;
  const [width, height, node] = [300, 220, run.about.thumbnails ? Math.max(22, Math.min(52, 200 / Math.sqrt(examples.length) / 1.4)) : 12];
  const place = placed(positions, examples.length, width, height, node / 2 + 8);
  const at = new Map(examples.map((example, k) => [example, place[k]]));
  const lines = edges.filter(([i, j]) => at.has(i) && at.has(j)).map(([i, j, value, error]) => {
    const [[x1, y1], [x2, y2]] = [at.get(i), at.get(j)];
    const share = Math.sqrt(Math.abs(value) / strongest);
    return svg(`line.edge${value < 0 ? '.negative' : ''}`, { x1, y1, x2, y2, 'stroke-width': (0.8 + 5 * share).toFixed(2) }, svg('title', {}, `${formatNumber(value)}${error ? ` ± ${formatNumber(error)}` : ''}`));
  });
  const nodes = examples.map((example, k) => {
    const [left, top] = place[k];
    const name = run.knownName(example) ?? `example ${example}`;
    const link = h(`a.node${run.about.thumbnails ? '' : '.dot'}`, {
      href: exampleAddress(run, example), title: name.slice(0, 300), 'aria-label': name.slice(0, 300),
      style: { left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`, width: `${node}px`, height: `${node}px` },
    }, thumbnail(run, example, Math.round(node)));
    run.exampleName(example).then((text) => { link.title = text.slice(0, 300); link.setAttribute('aria-label', link.title); }, () => {});
    return link;
  });
  const best = edges.reduce((a, b) => (Math.abs(b[2]) > Math.abs(a?.[2] ?? 0) ? b : a), null);
  const names = run.about.thumbnails ? null : h('ul.names', {}, examples.slice(0, 4).map((example) => {
    const link = h('a', { href: exampleAddress(run, example) }, (run.knownName(example) ?? `example ${example}`).slice(0, 120));
    run.exampleName(example).then((text) => { link.textContent = text.slice(0, 120); }, () => {});
    return h('li', {}, link);
  }), examples.length > 4 ? h('li.muted', {}, `and ${examples.length - 4} more`) : null);
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' }, lines);
  const save = button('SVG', () => saveGraph(drawing, examples.map((example, k) => [run.knownName(example) ?? `example ${example}`, place[k]])), { title: 'Save as SVG' });
  return h('figure.card.cluster', {}, h('.graph', {}, drawing, nodes), names,
    h('figcaption', {}, h('.chart-tools', {}, save), `${formatCount(cluster.size ?? examples.length)} ${run.about.noun}s`, best ? [' · strongest ', estimate(best[2], best[3])] : null));
}

// Saves a graph with names at its nodes; colors as they are now.
function saveGraph(drawing, nodes) {
  const theme = colors();
  const copy = drawing.cloneNode(true);
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  for (const line of copy.querySelectorAll('line')) line.setAttribute('stroke', line.classList.contains('negative') ? theme.negative : theme.positive);
  for (const [name, [x, y]] of nodes) {
    copy.append(svg('circle', { cx: x, cy: y, r: 4, fill: theme.text }), svg('text', { x, y: y - 7, 'font-size': 7, 'text-anchor': 'middle', 'font-family': 'sans-serif', fill: theme.text }, name.slice(0, 40)));
  }
  saveBlob('cluster.svg', new Blob([new XMLSerializer().serializeToString(copy)], { type: 'image/svg+xml' }));
}

// Positions stretched over the drawing; around a circle where the document has none.
function placed(positions, count, width, height, margin) {
  const given = positions?.length === count ? positions : Array.from({ length: count }, (_, k) => [Math.cos((2 * Math.PI * k) / count), Math.sin((2 * Math.PI * k) / count)]);
  const fit = (k, length) => {
    const values = given.map((position) => position[k]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return (value) => (high - low < 1e-9 ? length / 2 : margin + ((value - low) / (high - low)) * (length - 2 * margin));
  };
  const [x, y] = [fit(0, width), fit(1, height)];
  return given.map(([a, b]) => [x(a), y(b)]);
}

export async function matrixView({ run, body }) {
  const targets = await run.targets();
  run.exampleName(0).catch(() => {});
  return page(body, run, 'matrix', 'Influence matrix', 'Rows are examples, columns are targets, in the order of clusters. Blue lowers the loss, orange raises it. Scroll to zoom, drag to move; click an entry for its target.', (found) => {
    const values = decode(found.values);
    const { examples, targets: columns } = found;
    if (!examples.length || !columns.length) return h('p.state', {}, 'No entry of the matrix is stored.');
    const limit = found.limit || 1;
    const [rows, width] = [examples.length, columns.length];
    const entry = (x, y) => ({ row: rows - 1 - Math.floor(y), column: Math.floor(x) });
    const valid = ({ row, column }) => row >= 0 && row < rows && column >= 0 && column < width;
    const element = chart({
      name: 'matrix', height: 700, alt: `Influence of ${rows} examples on ${width} targets.`,
      build: (Bokeh, theme) => {
        const bare = { scale: linear, ticks: [] };
        const figure = plot(Bokeh, theme, {
          x: { ...bare, title: 'Targets', range: [0, width] }, y: { ...bare, title: 'Examples', range: [0, rows] }, drag: 'pan', wheel: true,
          hover: (x, y) => {
            const at = entry(x, y);
            if (!valid(at)) return null;
            const value = values[at.row * width + at.column];
            const target = columns[at.column];
            return h('.matrix-tip', {}, exampleTip(run, examples[at.row]), h('span.muted', {}, 'on'), h('.tip-row', {}, thumbnail(run, targets.example[target], 48), h('b', {}, targets.name(target).slice(0, 120))), h('span', {}, Number.isNaN(value) ? 'not stored' : `${formatNumber(value)} ${run.about.unit}`));
          },
          tap: (x, y) => {
            const at = entry(x, y);
            if (valid(at)) location.hash = run.address('target', columns[at.column]);
          },
        });
        const flipped = new Float32Array(values.length); // the first row is drawn lowest
        for (let row = 0; row < rows; row++) flipped.set(values.subarray((rows - 1 - row) * width, (rows - row) * width), row * width);
        const image = Bokeh.require('core/util/ndarray').ndarray(flipped.buffer, { dtype: 'float32', shape: [rows, width] });
        figure.image({ image: [image], x: 0, y: 0, dw: width, dh: rows, color_mapper: new Bokeh.LinearColorMapper({ palette: diverging(theme), low: -limit, high: limit, nan_color: 'rgba(0,0,0,0)' }) });
        for (const boundary of found.boundaries ?? []) {
          for (const [dimension, location] of [['height', boundary], ['width', rows - boundary]]) figure.add_layout(new Bokeh.Span({ location, dimension, line_color: theme.line, line_width: 1, line_alpha: 0.9 }));
        }
        return figure;
      },
    });
    const save = () => saveCsv('matrix', ['example', ...columns], examples.map((example, row) => [example, ...values.subarray(row * width, (row + 1) * width)]));
    element.classList.add('square');
    return [h('.section-tools', {}, h('span.scale', {}, formatNumber(-limit), h('i'), formatNumber(limit), ` ${run.about.unit}`), button('CSV', save)), element];
  });
}

// 255 colors from negative to positive through the card's own, as '#rrggbb'.
function diverging({ negative, card, positive }) {
  const channels = (color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16));
  const [from, middle, to] = [negative, card, positive].map(channels);
  return Array.from({ length: 255 }, (_, k) => {
    const share = Math.abs(k - 127) / 127;
    const end = k < 127 ? from : to;
    return `#${middle.map((value, c) => Math.round(value + (end[c] - value) * share).toString(16).padStart(2, '0')).join('')}`;
  });
}

export async function membershipView({ run, body }) {
  return page(body, run, 'membership', 'Membership inference', 'How well an attacker tells members from others: true positives against false positives, on logarithmic axes, as what matters is on the left.', ({ attacks, notes }) => {
    const curves = attacks.map((attack) => ({ ...attack, fpr: [...decode(attack.fpr)], tpr: [...decode(attack.tpr)] }));
    const floor = Math.max(1e-5, Math.min(1e-3, ...curves.flatMap(({ fpr }) => fpr.filter((value) => value > 0))));
    const log = new Scale('log');
    const position = (value) => log.forward(Math.max(value, floor));
    const element = chart({
      name: 'roc', height: 440, alt: `Receiver operating curves of ${curves.map(({ title, auc }) => `${title}, area ${formatNumber([auc].flat()[0])}`).join('; ')}.`,
      build: (Bokeh, theme) => {
        const range = [log.forward(floor), 0.02];
        const lines = curves.map(({ fpr, tpr }) => [fpr.map(position), tpr.map(position)]);
        const figure = plot(Bokeh, theme, {
          x: { title: 'False positive rate', scale: log, range }, y: { title: 'True positive rate', scale: log, range }, drag: 'box_zoom',
          hover: (x, y, near) => {
            for (const [k, [xs, ys]] of lines.entries()) {
              const point = nearest(xs, ys, near);
              if (point >= 0) return h('span', {}, h('b', {}, curves[k].title), h('br'), `${formatNumber(curves[k].tpr[point])} of members at ${formatNumber(curves[k].fpr[point])} false positives`);
            }
            return null;
          },
        });
        figure.line([range[0], 0], [range[0], 0], { line_color: theme.muted, line_dash: [4, 4], line_width: 1 });
        lines.forEach(([xs, ys], k) => figure.line(xs, ys, { line_color: theme.classes[k % 7], line_width: 2 }));
        return figure;
      },
    });
    const rates = [...new Set(curves.flatMap(({ tpr_at: at }) => (at ?? []).map(([fpr]) => fpr)))].sort((a, b) => a - b);
    const cell = (attack, rate) => {
      const found = (attack.tpr_at ?? []).find(([fpr]) => fpr === rate);
      return found ? withBounds(found.slice(1)) : '–';
    };
    const table = plainTable(['Attack', 'Area', ...rates.map((rate) => `TPR at ${formatNumber(100 * rate)} % FPR`)], curves.map((attack) => [attack.title, withBounds([attack.auc].flat()), ...rates.map((rate) => cell(attack, rate))]));
    const save = () => saveCsv('roc', ['attack', 'fpr', 'tpr'], curves.flatMap(({ name, fpr, tpr }) => fpr.map((value, k) => [name, value, tpr[k]])));
    return [legend([...curves.map(({ title }, k) => [`var(--class-${k % 7})`, title]), ['var(--muted)', 'guessing']]), element, section('Rates', 'With 95 % intervals over the models.', table, [button('CSV', save)]), ...(notes ?? []).map((text) => h('p.how', {}, text))];
  });
}

function plainTable(head, rows) {
  return h('.card.scroll', {}, h('table', {}, h('thead', {}, h('tr', {}, head.map((text) => h('th', { scope: 'col' }, text)))), h('tbody', {}, rows.map((row) => h('tr', {}, row.map((cell, k) => h(k === 0 ? 'th' : 'td', k === 0 ? { scope: 'row' } : {}, cell)))))));
}

const AGREEMENT = { self_influence: 'self-influence', off_diagonal: 'all other entries', significant: 'significant pairs', margin: 'margins (ranks)' };

export async function convergenceView({ run, body }) {
  return page(body, run, 'convergence', 'Convergence', `How well two disjoint halves of the ensemble agree, and what more members than its ${formatCount(run.about.members)} would change.`, (found) => {
    const names = Object.keys(AGREEMENT).filter((name) => found.agreement[name]?.some(Number.isFinite));
    const log = new Scale('log');
    const xs = found.members.map((members) => log.forward(members));
    const lowest = Math.min(0, ...names.flatMap((name) => found.agreement[name].filter(Number.isFinite)));
    const element = chart({
      name: 'convergence', height: 340, alt: `Agreement of two halves against their size, up to ${found.members.at(-1)} members each.`,
      build: (Bokeh, theme) => {
        const figure = plot(Bokeh, theme, {
          x: { title: 'Members in each half', scale: log, range: paddedRange(xs, 0.05), ticks: found.members }, y: { title: 'Correlation of the halves', scale: linear, range: [lowest, 1.03] }, drag: 'box_zoom',
          hover: (x, y, near) => {
            for (const name of names) {
              const k = nearest(xs, found.agreement[name], near);
              if (k >= 0) return h('span', {}, h('b', {}, AGREEMENT[name]), h('br'), `${formatNumber(found.agreement[name][k])} at ${found.members[k]} members`);
            }
            return null;
          },
        });
        names.forEach((name, k) => {
          const known = [...xs.keys()].filter((j) => Number.isFinite(found.agreement[name][j]));
          const [px, py] = [known.map((j) => xs[j]), known.map((j) => found.agreement[name][j])];
          figure.line(px, py, { line_color: theme.classes[k], line_width: 2 });
          figure.scatter(px, py, { size: 6, fill_color: theme.classes[k], line_color: theme.card });
        });
        return figure;
      },
    });
    const unit = run.about.unit ? ` (${run.about.unit})` : '';
    const known = names.filter((name) => found.predicted.some(({ reliability }) => Number.isFinite(reliability[name])));
    const head = ['Members', `Error of an entry${unit}`, `Error of self-influence${unit}`, ...known.map((name) => `Reliability: ${AGREEMENT[name]}`)];
    const rows = found.predicted.map(({ members, reliability, standard_error: error, self_standard_error: own }) => [
      [formatCount(members), members === found.current ? h('small.muted', {}, ' now') : null], formatNumber(error), formatNumber(own), ...known.map((name) => formatNumber(reliability[name])),
    ]);
    const save = () => saveCsv('convergence', ['members_of_a_half', ...names], found.members.map((members, k) => [members, ...names.map((name) => found.agreement[name][k])]));
    return [legend(names.map((name, k) => [`var(--class-${k})`, AGREEMENT[name]])), element,
      section('What more members give', 'Standard errors fall with the root of the number of members. Reliability: the correlation with as many new members (Spearman and Brown).', plainTable(head, rows), [button('CSV', save)])];
  });
}

// [value, low, high] as a number with its interval.
function withBounds([value, low, high]) {
  return [h('b', {}, formatNumber(value)), Number.isFinite(low) && Number.isFinite(high) ? h('span.error', {}, ` ${formatNumber(low)} to ${formatNumber(high)}`) : null];
}

export async function leaderboardView({ run, body }) {
  return page(body, run, 'leaderboard', 'Leaderboard', 'Methods of attribution, judged against what training shows. A click on a head sorts.', ({ header, rows }) => {
    const host = h('div');
    let [sorted, sign] = [-1, 1];
    const number = (text) => (text.trim() === '' ? NaN : Number(text));
    const show = () => {
      const order = [...rows];
      if (sorted >= 0) order.sort((a, b) => {
        const [p, q] = [number(a[sorted]), number(b[sorted])];
        if (Number.isNaN(p) && Number.isNaN(q)) return sign * a[sorted].localeCompare(b[sorted]);
        return Number.isNaN(p) - Number.isNaN(q) || sign * (p - q);
      });
      const heads = header.map((text, k) => h('button.head', { type: 'button', onclick: () => {
        sign = sorted === k ? -sign : rows.some((row) => Number.isFinite(number(row[k]))) ? -1 : 1;
        sorted = k;
        show();
      } }, text.replaceAll('_', ' '), sorted === k ? (sign > 0 ? ' ↑' : ' ↓') : ''));
      host.replaceChildren(plainTable(heads, order.map((row) => row.map((text) => (text !== '' && Number.isFinite(Number(text)) ? formatNumber(Number(text)) : text)))));
    };
    show();
    return [h('.section-tools', {}, button('CSV', () => saveCsv('leaderboard', header, rows))), host];
  });
}
