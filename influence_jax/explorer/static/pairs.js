// The significant pairs of the whole matrix, and the look-up of any one entry.
import { decode } from './data.js';
import { columnDecimals, formatCount, formatNumber } from './numbers.js';
import { WHISKERS, button, estimate, failure, h, interval, saveCsv, whisker, whiskerScale } from './dom.js';
import { adjusted, certainty, exampleAddress } from './entries.js';
import { VirtualTable } from './table.js';

export async function pairsView({ run, body, query, replace }) {
  const [targets, found, all] = await Promise.all([run.targets(), run.document('pairs'), run.document('examples')]);
  const [examples, of] = [found.examples, found.targets].map(decode);
  const columns = Object.fromEntries(Object.entries(found.columns).map(([name, column]) => [name, decode(column)]));
  const { value, error, low, high, cross_fitted: fitted, log10_p: logP } = columns;
  const ids = { example: (k) => all.ids[examples[k]], target: (k) => targets.ids[of[k]] };
  let parameters = new URLSearchParams(query);
  const change = (changes) => {
    const next = new URLSearchParams(parameters);
    for (const [name, text] of Object.entries(changes)) {
      if (text) next.set(name, text);
      else next.delete(name);
    }
    replace(next);
  };
  const table = new VirtualTable({
    label: 'Significant pairs',
    address: (k) => run.address('target', of[k]),
    sort: (key) => change({ sort: parameters.get('sort') === `-${key}` ? key : `-${key}` }),
    empty: () => h('p', {}, found.total ? 'No pair matches.' : 'No influence of one example on another is significant.'),
  });
  const decimals = columnDecimals([...value].slice(0, 2000), [...error].slice(0, 2000));
  const row = (k) => [examples[k], value[k], error[k], 1, low[k], high[k]];
  const scale = whiskerScale([...value.keys()].slice(0, 2000).map(row));
  const link = (address, id, name) =>
    h(
      'a.record',
      { href: address, tabindex: '-1', title: name },
      h('span.name', {}, id, id === name ? null : h('small', {}, name.slice(0, 200))),
    );
  const number = (key, title, cell, width = 110) => ({ key, title, numeric: true, width: [width, 0], cell });
  const shown = [
    {
      key: 'example',
      title: 'Influence of',
      width: [150, 1],
      cell: (k) => link(exampleAddress(run, examples[k]), ids.example(k), all.names[examples[k]]),
    },
    {
      key: 'target',
      title: 'on',
      width: [150, 1],
      cell: (k) => link(run.address('target', of[k]), ids.target(k), targets.name(of[k])),
    },
    number(
      'value',
      'Influence',
      (k) => [interval(value[k], whisker(row(k)), scale, 84), estimate(value[k], error[k], decimals)],
      236,
    ),
    number('low', '95 % interval', (k) => `${formatNumber(low[k])} to ${formatNumber(high[k])}`, 150),
    number('cross_fitted', 'Cross-fitted', (k) => formatNumber(fitted[k], decimals)),
    number('log10_p', 'p', (k) => formatP(logP[k]), 100),
  ];
  const search = h('input', {
    type: 'search',
    placeholder: 'Search id or name  ( / )',
    'aria-label': 'Search id or name',
    value: parameters.get('q') ?? '',
    oninput: () => change({ q: search.value }),
  });
  const counted = h('span.count', { role: 'status' });
  let rows = [];
  const names = Object.keys(columns);
  const save = () =>
    saveCsv(
      `pairs_${run.index}`,
      ['example', 'example_id', 'target', 'target_id', ...names],
      rows.map((k) => [examples[k], ids.example(k), of[k], ids.target(k), ...names.map((name) => columns[name][k])]),
    );
  const isCut = found.total > examples.length || !found.complete;
  const surest = isCut ? `, the surest ${formatCount(examples.length)} here` : '';
  body.classList.add('full');
  body.append(
    h(
      '.intro',
      {},
      h('h1', {}, 'Which examples influence which others, beyond noise?'),
      h(
        'p.how',
        {},
        `${formatCount(found.total)} of ${formatCount(found.tests)} pairs of an example and another target are significant${surest}; at most ${formatNumber(100 * found.level)} % of them are false on average (Benjamini and Hochberg). ${WHISKERS} Being listed for their size, influences are too large on average; cross-fitted ones, by members that had no part in the listing, are not.`,
      ),
    ),
    h('.filters', {}, h('.filter-controls', {}, search), h('.actions', {}, counted, button('CSV', save))),
    table.element,
  );
  function update(text) {
    parameters = new URLSearchParams(text);
    const sort = parameters.get('sort') ?? 'log10_p';
    const key = sort.replace(/^-/, '');
    const sign = sort.startsWith('-') ? -1 : 1;
    const q = (parameters.get('q') ?? '').toLowerCase();
    const words = (k) =>
      `${ids.example(k)}\n${all.names[examples[k]]}\n${ids.target(k)}\n${targets.name(of[k])}`.toLowerCase();
    rows = [...examples.keys()].filter((k) => !q || words(k).includes(q));
    const keyOf = key in ids ? ids[key] : (k) => (columns[key] ?? logP)[k];
    const order = new Intl.Collator('en', { numeric: true }).compare;
    rows.sort((a, b) => sign * (key in ids ? order(keyOf(a), keyOf(b)) : keyOf(a) - keyOf(b) || 0) || a - b);
    counted.textContent = `${formatCount(rows.length)} pairs`;
    table.setColumns(shown, key, sign < 0, 'value');
    table.setRows(rows);
  }
  update(query);
  return { update, keys: table.keys, leave: () => table.leave() };
}

function formatP(log) {
  return log > -4 ? formatNumber(10 ** log) : `10^${log.toFixed(1)}`.replace('-', '\u2212');
}

// A field that answers what the influence of any one example on this target is.
export function entryLookup(run, targets, t, found) {
  const answer = h('p', { role: 'status' });
  const field = h('input', {
    type: 'search',
    placeholder: 'id of an example',
    'aria-label': 'Influence of the example of this id',
  });
  const look = async (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    try {
      answer.replaceChildren(...(await sentence(run, targets, t, found, text)));
    } catch (error) {
      answer.replaceChildren(failure(error));
    }
  };
  return h(
    'form.lookup',
    { onsubmit: look },
    h('label.field', {}, h('span', {}, 'Influence of'), field),
    button('Look up', null, { type: 'submit' }),
    answer,
  );
}

async function sentence(run, targets, t, found, text) {
  const { ids, names } = await run.document('examples');
  const known = ids.indexOf(text);
  const example = known >= 0 ? known : names.indexOf(text);
  if (example < 0) return [`There is no example of the id “${text.slice(0, 80)}”.`];
  const link = h('a', { href: exampleAddress(run, example) }, ids[example]);
  if (example === found.example) {
    return ['Of itself, ', link, ': ', estimate(...found.self), ` ${run.about.unit} (one standard error).`];
  }
  const row = await entry(run, t, example, found);
  if (!row) return ['Of ', link, ': not among the stored strongest.'];
  const [, value, error] = row;
  const more = adjusted(row);
  return [
    'Of ',
    link,
    ': ',
    estimate(value, error),
    ` ${run.about.unit}; `,
    certainty(row),
    more ? ['; 95 % interval adjusted for its being chosen: ', more] : '; ± is one standard error',
    '.',
  ].flat();
}

async function entry(run, t, example, found) {
  if (run.has('entry')) return (await run.document(`entry/${t}/${example}`)).row;
  const { positive, negative } = found.influencers;
  const shown = [...positive, ...negative].find(([other]) => other === example);
  if (shown) return shown;
  const pairs = await run.document('pairs');
  const [examples, of] = [pairs.examples, pairs.targets].map(decode);
  const k = examples.findIndex((other, place) => other === example && of[place] === t);
  if (k < 0) return null;
  const at = (name) => decode(pairs.columns[name])[k];
  return [example, at('value'), at('error'), 1, at('low'), at('high'), at('cross_fitted')];
}
