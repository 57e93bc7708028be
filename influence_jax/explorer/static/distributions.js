// Charts of one target: its whole influence distribution, and the losses of the members.
import { decode, decodeBits } from './data.js';
import { Scale, formatCount, formatNumber } from './numbers.js';
import { WHISKERS, button, h, saveCsv, section, whisker } from './dom.js';
import { chart, legend, nearest, paddedRange, plot } from './charts.js';
import { exampleAddress, exampleTip } from './entries.js';

const OTHERS_MARKED = 6;

// The whole column: counts on an axis that is linear within the noise and logarithmic beyond it.
export function distributionSection(run, targets, t, found, strongest) {
  const noise = found.null_error > 0 ? found.null_error : null;
  if (!found.histogram && !found.quantiles?.length) return null;
  const histogram = found.histogram && readHistogram(found.histogram);
  const values = histogram ? histogram.edges : found.quantiles.map(([, value]) => value);
  const scale = new Scale('asinh', noise ?? (Math.max(...values.map(Math.abs)) / 100 || 1));
  const marks = [
    ...(found.self
      ? [{ kind: 'self', row: [targets.example[t], ...found.self], level: 0 }]
      : []),
    ...strongest
      .slice(0, OTHERS_MARKED)
      .map((row, k) => ({ kind: row[3] ? 'other' : 'noise', row, level: k + 1 })),
  ];
  const reach = [
    ...values,
    ...marks.flatMap(({ row }) => whisker(row)),
  ];
  const range = paddedRange(
    reach.map((value) => scale.forward(value)),
    0.02,
  );
  const unit = run.about.unit;
  const element = chart({
    name: `target_${t}_distribution`,
    height: 340,
    alt: `Distribution of the influence of ${formatCount(run.about.examples)} examples on ${targets.name(t)}${found.self ? `; its own is ${formatNumber(found.self[0])}` : ''}.`,
    build: (Bokeh, theme) => drawDistribution(Bokeh, theme, { run, found, histogram, scale, range, marks, unit }),
  });
  const entries = [
    ['var(--neutral)', histogram ? 'examples' : 'quantiles'],
    ['var(--positive)', 'its own influence'],
    ['var(--text)', 'strongest others that stand out'],
    ['var(--muted)', 'that do not'],
    ['var(--band)', `of ${formatCount(run.about.targets)} columns of noise, one reaches beyond by chance`],
  ];
  const how = `How much each training ${run.about.noun} lowers (right) or raises (left) the loss here${unit ? `, in ${unit}` : ''}. The axis is linear within the noise and logarithmic beyond it; the band is for an example of typical noise, while each influence is tested by its own error, so that one inside may stand out. ${WHISKERS} Drag to zoom, double-click to see all.`;
  return section('Whole distribution', how, [
    legend(entries.filter(([, text]) => noise || !text.endsWith('chance'))),
    element,
  ]);
}

// Edges and counts of bins, which are evenly spaced in asinh(value / scale) from `low` to `high`.
function readHistogram({ low, high, scale, counts: encoded }) {
  const counts = [...decode(encoded)];
  const spaced = new Scale('asinh', scale);
  const edges = Array.from({ length: counts.length + 1 }, (_, k) =>
    spaced.inverse(low + ((high - low) * k) / counts.length),
  );
  return { edges, counts };
}

function drawDistribution(Bokeh, theme, { run, found, histogram, scale, range, marks, unit }) {
  const counts = new Scale('asinh', 1);
  const top = histogram ? counts.forward(Math.max(...histogram.counts)) * 1.06 : 1.04;
  // Below zero is a strip for single influences: its own first, then others by their strength.
  const step = (0.42 * top) / (OTHERS_MARKED + 1);
  const edges = histogram?.edges.map((value) => scale.forward(value));
  const xs = marks.map(({ row }) => scale.forward(row[1]));
  const ys = marks.map(({ level }) => -step * (level + 0.9));
  const hover = (x, _, near) => {
    const k = nearest(xs, ys, near);
    if (k >= 0) return exampleTip(run, ...marks[k].row.slice(0, 4));
    if (!histogram) return null;
    const bin = edges.findIndex((edge) => edge > x) - 1;
    if (bin < 0 || !histogram.counts[bin]) return null;
    return h(
      'span',
      {},
      `${formatCount(histogram.counts[bin])} examples from ${formatNumber(histogram.edges[bin])} to ${formatNumber(histogram.edges[bin + 1])}`,
    );
  };
  const tap = (x, _, near) => {
    const k = nearest(xs, ys, near);
    if (k >= 0 && marks[k].kind !== 'self') location.hash = exampleAddress(run, marks[k].row[0]);
  };
  const figure = plot(Bokeh, theme, {
    x: { title: `Influence${unit ? ` (${unit})` : ''}`, scale, range, count: 9 },
    y: histogram
      ? {
          title: 'Examples',
          scale: counts,
          range: [-step * (marks.length + 0.9), top],
          ticks: [0, 1, 10, 100, 1000, 10000, 100000],
        }
      : {
          title: 'Share of examples below',
          scale: new Scale('linear'),
          range: [-step * (marks.length + 0.9), top],
          ticks: [0, 0.25, 0.5, 0.75, 1],
        },
    hover,
    tap,
  });
  if (found.null_error > 0 && found.z_threshold > 0) {
    const edge = scale.forward(found.z_threshold * found.null_error);
    figure.add_layout(
      new Bokeh.BoxAnnotation({
        left: -edge,
        right: edge,
        fill_color: theme.band,
        fill_alpha: 1,
        line_color: null,
        level: 'underlay',
      }),
    );
  }
  figure.add_layout(
    new Bokeh.Span({ location: 0, dimension: 'height', line_color: theme.muted, line_alpha: 0.5, line_width: 1 }),
  );
  if (histogram) {
    figure.quad({
      left: edges.slice(0, -1),
      right: edges.slice(1),
      bottom: 0,
      top: histogram.counts.map((count) => counts.forward(count)),
      fill_color: theme.neutral,
      fill_alpha: 0.75,
      line_color: theme.card,
      line_width: 0.4,
    });
  } else {
    figure.line(
      found.quantiles.map(([, value]) => scale.forward(value)),
      found.quantiles.map(([level]) => level),
      { line_color: theme.neutral, line_width: 2 },
    );
  }
  const color = marks.map(({ kind }) => ({ self: theme.positive, other: theme.text, noise: theme.muted })[kind]);
  const ends = (side) => marks.map(({ row }) => scale.forward(whisker(row)[side]));
  figure.segment(ends(0), ys, ends(1), ys, { line_color: color, line_width: 1.5, line_alpha: 0.65 });
  figure.scatter(xs, ys, {
    size: marks.map(({ kind }) => (kind === 'self' ? 11 : 8)),
    marker: 'circle',
    fill_color: color,
    line_color: theme.card,
  });
  return figure;
}

// Losses of members that were trained on it, and of those that were not.
export function lossesSection(run, t, losses) {
  const values = decode(losses.values);
  const included = losses.included && decodeBits(losses.included, values.length); // null: it is no example
  const parts = [[], []];
  values.forEach((value, m) => {
    if (Number.isFinite(value)) parts[included?.[m] ? 0 : 1].push(value);
  });
  if (!parts[0].length && !parts[1].length) return null;
  const range = paddedRange(parts.flat(), 0.03);
  const bins = Math.min(40, Math.max(8, Math.round(2 * Math.cbrt(parts.flat().length) * 1.6)));
  const edges = Array.from({ length: bins + 1 }, (_, k) => range[0] + ((range[1] - range[0]) * k) / bins);
  const shares = parts.map((part) => {
    const found = new Array(bins).fill(0);
    for (const value of part)
      found[Math.min(bins - 1, Math.floor(((value - range[0]) / (range[1] - range[0])) * bins))] += 1 / part.length;
    return found;
  });
  const linear = new Scale('linear');
  const titles = ['trained on it', 'not trained on it'];
  const element = chart({
    name: `target_${t}_losses`,
    height: 260,
    alt: `Losses of ${parts[0].length} members trained on it and ${parts[1].length} that were not.`,
    build: (Bokeh, theme) => {
      const figure = plot(Bokeh, theme, {
        x: { title: `Loss${run.about.unit ? ` (${run.about.unit})` : ''}`, scale: linear, range, count: 8 },
        y: { title: 'Share of members', scale: linear, range: [0, Math.max(...shares.flat()) * 1.08], count: 4 },
        hover: (x) => {
          const bin = Math.floor(((x - range[0]) / (range[1] - range[0])) * bins);
          return bin < 0 || bin >= bins
            ? null
            : h(
                'span',
                {},
                `${formatNumber(edges[bin])} to ${formatNumber(edges[bin + 1])}`,
                titles.map((title, k) => [h('br'), `${(100 * shares[k][bin]).toFixed(1)} % of members ${title}`]),
              );
        },
      });
      [theme.positive, theme.negative].forEach((color, k) =>
        figure.quad({
          left: edges.slice(0, -1),
          right: edges.slice(1),
          bottom: 0,
          top: shares[k],
          fill_color: color,
          fill_alpha: 0.4,
          line_color: color,
          line_alpha: 0.9,
          line_width: 0.8,
        }),
      );
      return figure;
    },
  });
  const mean = (part) => part.reduce((sum, value) => sum + value, 0) / part.length;
  const entries = ['var(--positive)', 'var(--negative)'].map((color, k) => [
    color,
    `${formatCount(parts[k].length)} members ${titles[k]}${parts[k].length ? `, mean ${formatNumber(mean(parts[k]))}` : ''}`,
  ]);
  const rows = () =>
    saveCsv(
      `target_${t}_losses`,
      ['member', 'included', 'loss'],
      Array.from(values, (value, m) => [m, included?.[m] ?? null, value]),
    );
  return section(
    included ? 'Losses of the members, in and out' : 'Losses of the members',
    '',
    [legend(entries.filter((_, k) => parts[k].length)), element],
    losses.values.u2 ? [] : [button('CSV', rows)], // of an export they are rounded
  );
}
