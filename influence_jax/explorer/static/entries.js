// Examples and targets in lists: picture, name, influence with its interval, and the page it leads to.
import { formatNumber } from './numbers.js';
import { button, estimate, h, interval, thumbnail, whisker } from './dom.js';

const FIRST_SHOWN = 12;

// Names of what an entry has after its position, as CSV files have them.
export const ENTRY_COLUMNS = [
  'influence',
  'standard_error',
  'stands_out',
  'interval_low',
  'interval_high',
  'influence_cross_fitted',
];

export function exampleTip(run, example, value, error, standsOut) {
  const name = run.knownName(example) ?? `example ${example}`;
  return h(
    '.tip-row',
    {},
    thumbnail(run, example, 48),
    h(
      'span',
      {},
      h('b', {}, name.slice(0, 160)),
      value === undefined ? null : h('br'),
      value === undefined ? null : estimate(value, error),
      standsOut === undefined ? null : [h('br'), standsOut ? 'stands out from noise' : 'does not stand out from noise'],
    ),
  );
}

// The page of an example: its target's, where it is one.
export function exampleAddress(run, example) {
  const t = run.table?.targetOf(example) ?? -1;
  return t >= 0 ? run.address('target', t) : run.address('example', example);
}

// How an example stands in a list: its address, picture and name, which may come later.
export function exampleEntry(run, example) {
  const name = h('span.clip', {}, run.knownName(example) ?? `example ${example}`);
  run.exampleName(example).then(
    (text) => {
      name.textContent = text.slice(0, 200);
    },
    () => {},
  );
  return { address: exampleAddress(run, example), picture: thumbnail(run, example, 36), name };
}

// Entries as documents have them in a list; more than a dozen are shown when asked for.
export function entryList(rows, scale, describe) {
  const item = (row) => {
    const [position, value, error, standsOut] = row;
    const { address, picture, name } = describe(position);
    return h(
      `li${standsOut ? '' : '.noise'}`,
      {},
      h(
        `a.entry${picture ? '.pictured' : ''}`,
        { href: address, title: certainty(row) },
        picture,
        name,
        interval(value, whisker(row), scale, 84),
        h('span.value', {}, estimate(value, error), adjusted(row)),
      ),
    );
  };
  const list = h('ul.entries', {}, rows.slice(0, FIRST_SHOWN).map(item));
  if (rows.length <= FIRST_SHOWN) return list;
  const more = button(`All ${rows.length}`, () => {
    list.append(...rows.slice(FIRST_SHOWN).map(item));
    more.remove();
  });
  return [list, more];
}

// What is known of a significant pair beyond its value, which was chosen for its size.
export function adjusted([, , , , low, high, fitted]) {
  if (!Number.isFinite(low)) return null;
  const cross = Number.isFinite(fitted) ? `, cross-fitted ${formatNumber(fitted)}` : '';
  return h('small.muted', {}, `${formatNumber(low)} to ${formatNumber(high)}${cross}`);
}

export function certainty([, value, error, standsOut]) {
  const size = error > 0 ? `${formatNumber(value / error)} standard errors: ` : '';
  return `${size}${standsOut ? 'stands out from noise' : 'does not stand out from noise'}`;
}
