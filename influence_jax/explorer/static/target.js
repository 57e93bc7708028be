// A target's page: what is known of it, and what influences it; and an example's: what it influences.
import { Request, decode } from './data.js';
import { Scale, formatCount, formatNumber } from './numbers.js';
import { button, estimate, fillLater, h, interval, markedDifferences, saveCsv, section, select, shorten, thumbnail, verdictChip, INTERVAL } from './dom.js';
import { chart, legend, nearest, paddedRange, plot } from './charts.js';

const FIRST_SHOWN = 12;
const OTHERS_MARKED = 6;

export async function targetView({ run, body, key, query }) {
  const t = Number(key);
  const targets = await run.targets();
  if (!(t >= 0 && t < targets.length)) throw new Error(`There is no target ${key}; targets are 0 to ${targets.length - 1}.`);
  const request = new Request(query);
  const order = targets.select(request);
  const place = order.indexOf(t);
  const address = (other) => run.address('target', other, request.query);
  const [before, after] = [order[place - 1], place < 0 ? undefined : order[place + 1]];
  const back = run.address('targets', '', request.query);
  document.title = `${targets.name(t).slice(0, 80)} · ${run.about.title}`;

  body.append(
    h('nav.steps', { 'aria-label': 'Targets in the order of the table' },
      h('a', { href: back }, '← Table'),
      h('span.muted', {}, place < 0 ? '' : `${formatCount(place + 1)} of ${formatCount(order.length)}`),
      stepLink('Previous', before, address), stepLink('Next', after, address)),
    targetHeader(run, targets, t),
  );
  const rest = h('.parts');
  body.append(rest);
  fillLater(rest, run.target(t), (document_) => targetParts(run, targets, t, document_));
  const go = (other) => () => { if (other !== undefined) location.hash = address(other); };
  return {
    keys: { j: go(after), ArrowRight: go(after), k: go(before), ArrowLeft: go(before), Escape: () => { location.hash = back; } },
  };
}

function stepLink(label, t, address) {
  return t === undefined ? h('span.button.off', { 'aria-disabled': 'true' }, label) : h('a.button', { href: address(t) }, label);
}

function targetHeader(run, targets, t) {
  const example = targets.example[t];
  const values = targets.quantities.filter(({ name }) => ['self_influence', 'margin', 'other_value', 'effective_members', 'mean_loss', 'vulnerability'].includes(name));
  const keys = values.map(({ name, title, help, error }) => h('li', { title: help || null },
    estimate(targets.column(name)[t], targets.column(error)?.[t]), h('span', {}, title)));
  return h('.subject', {},
    thumbnail(run, example, 112, targets.name(t)),
    h('.subject-text', {},
      h('h1', {}, targets.name(t).slice(0, 300)),
      h('p.how', {}, [targets.ids[t] !== targets.name(t) ? targets.ids[t] : '', targets.label(t)].filter(Boolean).join(' · ').slice(0, 400), ' ', verdictChip(run.verdict(targets.verdicts[t]))),
      h('ul.keys', {}, keys),
      example >= 0 ? h('p', {}, h('a', { href: run.address('example', example) }, `What it influences as a training ${run.about.noun} →`)) : null));
}

function targetParts(run, targets, t, found) {
  const { influencers } = found;
  if (found.histogram) found.histogram = { edges: [...decode(found.histogram.edges)], counts: [...decode(found.histogram.counts)] };
  const strongest = [...influencers.positive, ...influencers.negative].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const parts = [
    found.note ? h('p.note', {}, found.note) : null,
    distributionSection(run, targets, t, found, strongest),
    strongest.length ? influencersSection(run, t, influencers) : null,
    recordsSection(run, targets.example[t], influencers.positive.concat(influencers.negative)),
    tokensSection(found.tokens),
    found.losses ? lossesSection(run, t, found.losses) : null,
    vulnerabilitySection(found.vulnerability),
    found.attribution?.length ? attributionSection(run, found) : null,
  ];
  return parts.filter(Boolean);
}

// The whole column: counts on an axis that is linear within the noise and logarithmic beyond it.
function distributionSection(run, targets, t, found, strongest) {
  const noise = found.null_error > 0 ? found.null_error : null;
  if (!found.histogram && !found.quantiles?.length) return null;
  const values = found.histogram ? found.histogram.edges : found.quantiles.map(([, value]) => value);
  const scale = new Scale('asinh', noise ?? (Math.max(...values.map(Math.abs)) / 100 || 1));
  const marks = [
    ...(found.self ? [{ kind: 'self', example: targets.example[t], value: found.self[0], error: found.self[1], level: 0 }] : []),
    ...strongest.slice(0, OTHERS_MARKED).map(([example, value, error], k) => ({ kind: 'other', example, value, error, level: k + 1 })),
  ];
  const reach = [...values, ...marks.flatMap(({ value, error }) => [value - INTERVAL * (error ?? 0), value + INTERVAL * (error ?? 0)])];
  const range = paddedRange(reach.map((value) => scale.forward(value)), 0.02);
  const unit = run.about.unit;
  const element = chart({
    name: `target_${t}_distribution`, height: 340,
    alt: `Distribution of the influence of ${formatCount(run.about.examples)} examples on ${targets.name(t)}${found.self ? `; its own is ${formatNumber(found.self[0])}` : ''}.`,
    build: (Bokeh, theme) => drawDistribution(Bokeh, theme, { run, found, scale, range, marks, unit }),
  });
  const entries = [['var(--neutral)', found.histogram ? 'examples' : 'quantiles'], ['var(--positive)', 'its own influence'], ['var(--negative)', 'strongest others'], ['var(--band)', 'what noise alone may reach']];
  const how = `How much each training ${run.about.noun} lowers (right) or raises (left) the loss here${unit ? `, in ${unit}` : ''}. The axis is linear within the noise and logarithmic beyond it; whiskers are 95 % intervals. Drag to zoom, double-click to see all.`;
  return section('Whole distribution', how, [legend(entries.filter(([, text]) => noise || !text.startsWith('what'))), element]);
}

function drawDistribution(Bokeh, theme, { run, found, scale, range, marks, unit }) {
  const { histogram } = found;
  const counts = new Scale('asinh', 1);
  const top = histogram ? counts.forward(Math.max(...histogram.counts)) * 1.06 : 1.04;
  // Below zero is a strip for single influences: its own first, then others by their strength.
  const step = (0.42 * top) / (OTHERS_MARKED + 1);
  const edges = histogram?.edges.map((value) => scale.forward(value));
  const xs = marks.map(({ value }) => scale.forward(value));
  const ys = marks.map(({ level }) => -step * (level + 0.9));
  const hover = (x, _, near) => {
    const k = nearest(xs, ys, near);
    if (k >= 0) return exampleTip(run, marks[k].example, marks[k].value, marks[k].error);
    if (!histogram) return null;
    const bin = edges.findIndex((edge) => edge > x) - 1;
    if (bin < 0 || !histogram.counts[bin]) return null;
    return h('span', {}, `${formatCount(histogram.counts[bin])} examples from ${formatNumber(histogram.edges[bin])} to ${formatNumber(histogram.edges[bin + 1])}`);
  };
  const tap = (x, _, near) => {
    const k = nearest(xs, ys, near);
    if (k >= 0 && marks[k].kind === 'other') location.hash = exampleAddress(run, marks[k].example);
  };
  const figure = plot(Bokeh, theme, {
    x: { title: `Influence${unit ? ` (${unit})` : ''}`, scale, range, count: 9 },
    y: histogram
      ? { title: 'Examples', scale: counts, range: [-step * (marks.length + 0.9), top], ticks: [0, 1, 10, 100, 1000, 10000, 100000] }
      : { title: 'Share of examples below', scale: new Scale('linear'), range: [-step * (marks.length + 0.9), top], ticks: [0, 0.25, 0.5, 0.75, 1] },
    hover, tap,
  });
  if (found.null_error > 0 && found.z_threshold > 0) {
    const edge = scale.forward(found.z_threshold * found.null_error);
    figure.add_layout(new Bokeh.BoxAnnotation({ left: -edge, right: edge, fill_color: theme.band, fill_alpha: 1, line_color: null, level: 'underlay' }));
  }
  figure.add_layout(new Bokeh.Span({ location: 0, dimension: 'height', line_color: theme.muted, line_alpha: 0.5, line_width: 1 }));
  if (histogram) {
    figure.quad({ left: edges.slice(0, -1), right: edges.slice(1), bottom: 0, top: histogram.counts.map((count) => counts.forward(count)), fill_color: theme.neutral, fill_alpha: 0.75, line_color: theme.card, line_width: 0.4 });
  } else {
    figure.line(found.quantiles.map(([, value]) => scale.forward(value)), found.quantiles.map(([level]) => level), { line_color: theme.neutral, line_width: 2 });
  }
  const color = marks.map(({ kind }) => (kind === 'self' ? theme.positive : theme.negative));
  const ends = (sign) => marks.map(({ value, error }) => scale.forward(value + sign * INTERVAL * (error ?? 0)));
  figure.segment(ends(-1), ys, ends(1), ys, { line_color: color, line_width: 1.5, line_alpha: 0.65 });
  figure.scatter(xs, ys, { size: marks.map(({ kind }) => (kind === 'self' ? 11 : 8)), marker: 'circle', fill_color: color, line_color: theme.card });
  return figure;
}

export function exampleTip(run, example, value, error) {
  const name = run.knownName(example) ?? `example ${example}`;
  return h('.tip-row', {}, thumbnail(run, example, 48), h('span', {}, h('b', {}, name.slice(0, 160)), value === undefined ? null : h('br'), value === undefined ? null : estimate(value, error)));
}

// The page of an example: its target's, where it is one.
export function exampleAddress(run, example) {
  const t = run.table?.targetOf(example) ?? -1;
  return t >= 0 ? run.address('target', t) : run.address('example', example);
}

function influencersSection(run, t, { positive, negative }) {
  const all = [...positive, ...negative];
  const scale = [Math.min(0, ...all.map(([, value, error]) => value - INTERVAL * (error ?? 0))), Math.max(0, ...all.map(([, value, error]) => value + INTERVAL * (error ?? 0)))];
  const lists = [['Help: the loss here is lower with them', positive], ['Hurt: the loss here is higher with them', negative]]
    .filter(([, rows]) => rows.length)
    .map(([title, rows]) => h('.card', {}, h('h3', {}, title), entryList(rows, scale, (example) => exampleEntry(run, example))));
  const save = async () => {
    const rows = await Promise.all(all.map(async ([example, value, error, standsOut]) => [example, await run.exampleName(example), value, error, standsOut]));
    saveCsv(`target_${t}_influences`, ['example', 'name', 'influence', 'standard_error', 'stands_out'], rows);
  };
  return section('Because of which others', 'Strongest first, with 95 % intervals. Those in gray do not stand out from noise. Each leads to its own page.', h('.two', {}, lists), [button('CSV', save)]);
}

// How an example stands in a list: its address, picture and name, which may come later.
function exampleEntry(run, example) {
  const name = h('span.clip', {}, run.knownName(example) ?? `example ${example}`);
  run.exampleName(example).then((text) => { name.textContent = text.slice(0, 200); }, () => {});
  return { address: exampleAddress(run, example), picture: thumbnail(run, example, 36), name };
}

// Entries [position, value, error, stands out] as a list; more than a dozen are shown when asked for.
function entryList(rows, scale, describe) {
  const item = ([position, value, error, standsOut]) => {
    const { address, picture, name } = describe(position);
    return h(`li${standsOut ? '' : '.noise'}`, {}, h(`a.entry${picture ? '.pictured' : ''}`, { href: address, title: certainty(value, error, standsOut) },
      picture, name, interval(value, error, scale[0], scale[1], 84), estimate(value, error)));
  };
  const list = h('ul.entries', {}, rows.slice(0, FIRST_SHOWN).map(item));
  if (rows.length <= FIRST_SHOWN) return list;
  const more = button(`All ${rows.length}`, () => {
    list.append(...rows.slice(FIRST_SHOWN).map(item));
    more.remove();
  });
  return [list, more];
}

function certainty(value, error, standsOut) {
  const size = error > 0 ? `${formatNumber(value / error)} standard errors: ` : '';
  return `${size}${standsOut ? 'stands out from noise' : 'does not stand out from noise'}`;
}

// Records beside each other: texts with the words that differ marked, rows of tables by feature.
function recordsSection(run, example, influencers) {
  if (example < 0) return null;
  if (run.about.table_columns) return rowsSection(run, example, influencers.slice(0, 4).map(([other]) => other));
  if (run.about.noun !== 'record') return null;
  const host = h('div');
  const others = influencers.slice(0, 24).map(([other]) => other);
  const show = (other) => fillLater(host, Promise.all([run.example(example), other === null ? null : run.example(other)]), ([left, right]) => sideBySide(run, left, right));
  show(others[0] ?? null);
  const choice = others.length > 1 ? select('Beside it', others.map((other) => [other, (run.knownName(other) ?? `example ${other}`).slice(0, 80)]), others[0], (value) => show(Number(value))) : null;
  return section('Records', others.length ? 'The record and what influences it, with the words that differ marked.' : '', host, choice ? [choice] : []);
}

function fieldsOf(document_) {
  if (!document_) return {};
  const { prompt, completion, text, change } = document_;
  return prompt || completion ? { Prompt: prompt ?? '', Completion: completion ?? '', Change: change ?? '' } : { Text: text ?? '', Change: change ?? '' };
}

function sideBySide(run, left, right) {
  const [a, b] = [fieldsOf(left), fieldsOf(right)];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => a[name] || b[name]);
  const column = (document_, side) => document_ && h('article.card.text-record', {},
    h('h3', {}, side === 0 ? 'This record' : h('a', { href: exampleAddress(run, document_.example) }, document_.name.slice(0, 200))),
    names.map((name) => [h('h4', {}, name), h('p.text', {}, right && name !== 'Change' ? markedDifferences(a[name] ?? '', b[name] ?? '')[side] : shorten((side === 0 ? a : b)[name] ?? ''))]));
  return h('.two', {}, column(left, 0), column(right, 1));
}

function rowsSection(run, example, others) {
  const host = h('.card.scroll');
  fillLater(host, Promise.all([example, ...others].map((each) => run.example(each))), (documents) => {
    const heads = documents.map((document_, k) => h('th', { scope: 'col' }, k === 0 ? 'This example' : h('a', { href: exampleAddress(run, document_.example) }, document_.name.slice(0, 60))));
    const rows = run.about.table_columns.map((name, k) => h('tr', {}, h('th', { scope: 'row' }, name), documents.map((document_) => {
      const value = document_.row?.[k] ?? '–';
      return h('td', {}, value === (documents[0].row?.[k] ?? '–') ? String(value) : h('mark', {}, String(value)));
    })));
    return h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Feature'), heads)), h('tbody', {}, rows));
  });
  return section('Features', 'Beside its strongest influencers; what differs is marked.', host);
}

function tokensSection(tokens) {
  if (!tokens) return null;
  const most = Math.max(...tokens.losses.filter(Number.isFinite), 1e-9);
  const words = tokens.tokens.map((token, k) => h('span.token', {
    title: formatNumber(tokens.losses[k]), style: { backgroundColor: `color-mix(in srgb, var(--negative) ${Math.round((60 * (tokens.losses[k] ?? 0)) / most)}%, transparent)` },
  }, token));
  return section('Loss of each token', 'The darker, the higher the loss.', h('p.card.text', {}, words));
}

// Losses of members that were trained on it, and of those that were not.
function lossesSection(run, t, losses) {
  const values = decode(losses.values);
  const included = losses.included ? [...losses.included].map(Number) : null; // null: it is no example
  const parts = [[], []];
  values.forEach((value, m) => { if (Number.isFinite(value)) parts[included?.[m] ? 0 : 1].push(value); });
  if (!parts[0].length && !parts[1].length) return null;
  const range = paddedRange(parts.flat(), 0.03);
  const bins = Math.min(40, Math.max(8, Math.round(2 * Math.cbrt(parts.flat().length) * 1.6)));
  const edges = Array.from({ length: bins + 1 }, (_, k) => range[0] + ((range[1] - range[0]) * k) / bins);
  const shares = parts.map((part) => {
    const found = new Array(bins).fill(0);
    for (const value of part) found[Math.min(bins - 1, Math.floor(((value - range[0]) / (range[1] - range[0])) * bins))] += 1 / part.length;
    return found;
  });
  const linear = new Scale('linear');
  const titles = ['trained on it', 'not trained on it'];
  const element = chart({
    name: `target_${t}_losses`, height: 260,
    alt: `Losses of ${parts[0].length} members trained on it and ${parts[1].length} that were not.`,
    build: (Bokeh, theme) => {
      const figure = plot(Bokeh, theme, {
        x: { title: `Loss${run.about.unit ? ` (${run.about.unit})` : ''}`, scale: linear, range, count: 8 },
        y: { title: 'Share of members', scale: linear, range: [0, Math.max(...shares.flat()) * 1.08], count: 4 },
        hover: (x) => {
          const bin = Math.floor(((x - range[0]) / (range[1] - range[0])) * bins);
          return bin < 0 || bin >= bins ? null : h('span', {}, `${formatNumber(edges[bin])} to ${formatNumber(edges[bin + 1])}`, titles.map((title, k) => [h('br'), `${(100 * shares[k][bin]).toFixed(1)} % of members ${title}`]));
        },
      });
      [theme.positive, theme.negative].forEach((color, k) => figure.quad({ left: edges.slice(0, -1), right: edges.slice(1), bottom: 0, top: shares[k], fill_color: color, fill_alpha: 0.4, line_color: color, line_alpha: 0.9, line_width: 0.8 }));
      return figure;
    },
  });
  const mean = (part) => part.reduce((sum, value) => sum + value, 0) / part.length;
  const entries = ['var(--positive)', 'var(--negative)'].map((color, k) => [color, `${formatCount(parts[k].length)} members ${titles[k]}${parts[k].length ? `, mean ${formatNumber(mean(parts[k]))}` : ''}`]);
  const rows = () => saveCsv(`target_${t}_losses`, ['member', 'included', 'loss'], Array.from(values, (value, m) => [m, included?.[m] ?? null, value]));
  return section(included ? 'Losses of the members, in and out' : 'Losses of the members', '', [legend(entries.filter((_, k) => parts[k].length)), element], [button('CSV', rows)]);
}

function vulnerabilitySection(found) {
  if (!found || !Number.isFinite(found.rate)) return null;
  const percent = (value) => `${formatNumber(100 * value)} %`;
  const facts = [
    ['Found', `${percent(found.rate)} of the members that were trained on it${Number.isFinite(found.low) ? ` (${percent(found.low)} to ${percent(found.high)})` : ''}`],
    ['Falsely accused', Number.isFinite(found.false_alarms) ? `${percent(found.false_alarms)} of the others${found.false_positive_rate ? `, at a threshold for ${percent(found.false_positive_rate)}` : ''}` : null],
    ['Area under the curve', Number.isFinite(found.auroc) ? estimate(found.auroc, found.auroc_error) : null],
    ['At risk', found.at_risk ? 'yes' : 'no'],
  ];
  const how = `What an attacker who sees its loss learns of who was trained on it${found.attack ? `, by ${found.attack}` : ''}.`;
  return section('Membership', how, h('dl.card.facts', {}, facts.filter(([, text]) => text !== null).map(([name, text]) => [h('dt', {}, name), h('dd', {}, text)])));
}

function attributionSection(run, found) {
  const standing = new Set([...found.influencers.positive, ...found.influencers.negative].filter(([, , , standsOut]) => standsOut).map(([example]) => example));
  const list = (title, about, rows) => h('.card', {}, h('h3', {}, title), about ? h('p.small', {}, about) : null, h('ol.entries', {}, rows.slice(0, 10).map(([example, score]) => {
    const { address, picture, name } = exampleEntry(run, example);
    return h(`li${standing.has(example) ? '' : '.noise'}`, {}, h(`a.entry.short${picture ? '.pictured' : ''}`, { href: address }, picture, name, h('span.number', {}, formatNumber(score))));
  })));
  const methods = found.attribution.map(({ method, unit, self, margin, influencers }) => list(method,
    [self === null || self === undefined ? '' : `itself ${formatNumber(self)}${unit ? ` ${unit}` : ''}`, margin === null || margin === undefined ? '' : `margin ${formatNumber(margin)}`].filter(Boolean).join(' · '), influencers.filter(([example]) => example !== found.example)));
  const ensemble = list('The ensemble', [found.self ? `itself ${formatNumber(found.self[0])} ${run.about.unit}` : '', found.margin === null ? '' : `margin ${formatNumber(found.margin)}`].filter(Boolean).join(' · '), found.influencers.positive);
  return section('Beside the ensemble: cheaper methods', 'The largest scores of each. In gray: examples that do not stand out in the ensemble.', h('.columns', {}, ensemble, methods));
}

export async function exampleView({ run, body, key }) {
  const i = Number(key);
  if (!(i >= 0 && i < run.about.examples)) throw new Error(`There is no example ${key}; examples are 0 to ${run.about.examples - 1}.`);
  const [targets, found] = await Promise.all([run.targets(), run.example(i)]);
  document.title = `${found.name.slice(0, 80)} · ${run.about.title}`;
  const own = found.target ?? -1;
  body.append(
    h('nav.steps', { 'aria-label': 'Up' }, h('a', { href: run.address('targets') }, '← Table')),
    h('.subject', {}, thumbnail(run, i, 112, found.name), h('.subject-text', {},
      h('h1', {}, found.name.slice(0, 300)),
      h('p.how', {}, [`training ${run.about.noun} ${i}`, found.label].filter(Boolean).join(' · ')),
      own >= 0 ? h('p', {}, h('a', { href: run.address('target', own) }, 'What influences it, as a target →')) : null)),
  );
  const others = found.outgoing.filter(([t]) => t !== own);
  const itself = found.outgoing.find(([t]) => t === own);
  const scale = [Math.min(0, ...others.map(([, value, error]) => value - INTERVAL * (error ?? 0))), Math.max(0, ...others.map(([, value, error]) => value + INTERVAL * (error ?? 0)))];
  const describe = (t) => ({ address: run.address('target', t), picture: thumbnail(run, targets.example[t], 36), name: h('span.clip', {}, targets.name(t).slice(0, 200)) });
  const lists = [['Lowers the loss of', 1], ['Raises the loss of', -1]]
    .map(([title, sign]) => [title, others.filter(([, value]) => value * sign > 0)]).filter(([, rows]) => rows.length)
    .map(([title, rows]) => h('.card', {}, h('h3', {}, title), entryList(rows, scale, describe)));
  const save = () => saveCsv(`example_${i}_influences`, ['target', 'id', 'name', 'influence', 'standard_error', 'stands_out'], found.outgoing.map(([t, ...rest]) => [t, targets.ids[t], targets.name(t), ...rest]));
  body.append(lists.length
    ? section('Whom it influences', `Among the strongest influences that are stored of each target, strongest first, with 95 % intervals.${itself ? ` On itself: ${formatNumber(itself[1])}.` : ''}`, h('.two', {}, lists), [button('CSV', save)])
    : h('p.state', {}, 'It is not among the strongest influences of any other target.'));
  if (found.text || found.prompt || found.completion) body.append(section('Record', '', sideBySide(run, found, null)));
  if (found.row && run.about.table_columns) body.append(section('Features', '', h('dl.card.facts', {}, run.about.table_columns.map((name, k) => [h('dt', {}, name), h('dd', {}, String(found.row[k]))]))));
  if (found.group?.length > 1) {
    body.append(section('Its group', 'Examples that belong together, or do the same.', h('ul.entries.card', {}, found.group.filter((other) => other !== i).map((other) => {
      const { picture, name, address } = exampleEntry(run, other);
      return h('li', {}, h(`a.entry${picture ? '.pictured' : ''}`, { href: address }, picture, name));
    }))));
  }
  return { keys: { Escape: () => { history.back(); } } };
}
