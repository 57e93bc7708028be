// Tokens of a text: their losses by membership, and on which of them an example's influence falls.
import { MINUS, formatCount, formatEstimate, formatNumber, timesPower } from './numbers.js';
import { button, failure, h, saveCsv, section } from './dom.js';

const MARKS = { ' ': '·', '\n': '↵', '\t': '→' };
const BEYOND_NOISE = 2; // standard errors

// Losses of a target's tokens, by members that were trained on it and by those that were not.
export function tokensSection(run, t, tokens) {
  if (!tokens) return null;
  const title = 'Token by token';
  if (tokens.error) return section(title, '', failure(new Error(tokens.error)));
  const unit = run.about.unit;
  const modes = modesOf(tokens);
  const host = h('.card');
  const buttons = modes.map((mode) => button(mode.title, () => show(mode), { 'aria-pressed': 'false' }));
  const show = (mode) => {
    buttons.forEach((each, k) => each.setAttribute('aria-pressed', String(modes[k] === mode)));
    host.replaceChildren(
      ...tokenLists(tokens, mode.values, {
        errors: mode.errors,
        color: mode.color,
        describe: (k) => `${modes.map((each) => `${each.name} ${written(each, k)}`).join(', ')} ${unit}`,
      }),
      h('p.small', {}, mode.help),
    );
  };
  show(modes[0]);
  const means = modes.map(({ name, values }) => `${name} ${formatNumber(mean(values))}`).join(', ');
  const whole = tokens.more ? '' : ` Their mean is that of the whole ${run.about.noun}: ${means}.`;
  const how = `The loss of every token given those before it, in ${unit}: means over members whose parameters are kept, ${membersOf(tokens)}.${whole}`;
  const save = () => saveTokens(t, tokens);
  const group = h('.toggles', { role: 'group', 'aria-label': 'Shown below each token' }, buttons);
  return section(title, how, host, [group, button('CSV', save)]);
}

// What can be shown of each token: the difference first, where there are members of both kinds.
function modesOf(tokens) {
  const loss = (side, name, title) => ({
    name,
    title,
    values: tokens[side],
    errors: tokens[`${side}_error`],
    color: () => '--class-4',
    help: 'Deeper color: larger loss.',
  });
  const out = loss('out', 'left out', 'Left out');
  const held = loss('in', 'trained on it', 'Trained on it');
  if (!tokens.included) return [out];
  if (!tokens.left_out) return [held];
  const difference = {
    name: 'difference',
    title: 'Difference',
    values: combined(out.values, held.values, (a, b) => a - b),
    errors: combined(out.errors, held.errors, Math.hypot),
    color: signColor,
    help: 'What members gain at each token by having been trained on the record. Blue: its loss is lower with it; orange: higher. In gray: within two standard errors of zero.',
  };
  return [difference, out, held];
}

// Of two columns; null where either has nothing.
function combined(left, right, combine) {
  return left.map((value, k) => (value === null || right[k] === null ? null : combine(value, right[k])));
}

function membersOf({ included, left_out: leftOut }) {
  if (!included) return `${formatCount(leftOut)}, none of which was trained on it`;
  if (!leftOut) return `${formatCount(included)}, all of which were trained on it`;
  return `${formatCount(included)} that were trained on it and ${formatCount(leftOut)} that were not`;
}

function written({ values, errors }, k) {
  return formatEstimate(values[k] ?? NaN, errors[k] ?? NaN)
    .filter(Boolean)
    .join(' ± ');
}

function mean(values) {
  const known = values.filter((value) => Number.isFinite(value));
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}

function signColor(value) {
  return value < 0 ? '--negative' : '--positive';
}

// Whether there are scores of a target's tokens for an example.
export function hasTokenScores(tokens, example) {
  return Boolean(tokens?.scores?.some(([other]) => other === example));
}

// Scores of a target's tokens for an example that influences it; null where there are none.
export function tokenScores(run, tokens, example) {
  if (!tokens?.scores?.length) return null;
  const { method, member, targets } = run.about.tokens.scores;
  const found = tokens.scores.find(([other]) => other === example);
  const of = `the strongest influencers of ${formatCount(targets)} targets, those most memorized and those of lowest margin`;
  if (!found) return h('p.small.token-scores', {}, `By token there are scores of ${of}; none of this pair.`);
  const [, values] = found;
  const sum = values.reduce((total, value) => total + (value ?? 0), 0);
  return h(
    '.card.token-scores',
    {},
    h('h3', {}, 'On which tokens of this record the influence of the other falls'),
    h(
      'p.small',
      {},
      `By ${method} of one model, member ${formatCount(member)}, not by the ensemble. Blue: training on the other lowers the loss of the token; orange: raises it.${tokens.more ? '' : ` Together ${formatNumber(sum)}.`} Computed for ${of}.`,
    ),
    tokenLists(tokens, values, { color: signColor, describe: (k) => formatNumber(values[k]) }),
  );
}

// Prompt and completion as lists of tokens, a value below each; by its color how large it is.
function tokenLists(tokens, values, { errors = null, color, describe }) {
  const largest = Math.max(...values.map((value) => Math.abs(value ?? 0))) || 1;
  const { short, note } = shortener(largest);
  const item = (text, k) => {
    const value = values[k];
    const isKnown = k > 0 && Number.isFinite(value);
    const isNoise = isKnown && color === signColor && errors && !(Math.abs(value) > BEYOND_NOISE * errors[k]);
    const share = isKnown ? Math.round((55 * Math.abs(value)) / largest) : 0;
    return h(
      `li.token${isNoise || !isKnown ? '.noise' : ''}`,
      {
        title: isKnown ? `“${text}”: ${describe(k)}` : k ? null : `“${text}”: the first token is not predicted`,
        style: { backgroundColor: `color-mix(in srgb, var(${color(value)}) ${share}%, transparent)` },
      },
      h('span.piece', {}, visible(text)),
      h('span.value', {}, isKnown ? short(value) : '–'),
    );
  };
  const start = tokens.answer_start;
  const items = tokens.texts.map(item);
  const list = (name, some) => [
    name ? h('h4', {}, name) : null,
    some.length ? h('ol.tokens', { 'aria-label': name ?? 'Text' }, some) : null,
  ];
  const rest = tokens.more
    ? `… and ${formatCount(tokens.more)} more tokens`
    : tokens.cut
      ? `… The record is longer: models read its first ${formatCount(items.length)} tokens.`
      : null;
  const lists = start
    ? [list('Prompt', items.slice(0, start)), list('Completion', items.slice(start))]
    : [list(null, items)];
  return [...lists.flat(), ...[rest, note].map((text) => text && h('p.small', {}, text))].filter(Boolean);
}

// A token with its spaces, line breaks and tabs visible.
function visible(text) {
  const parts = text.split(/([ \n\t])/).filter(Boolean);
  return parts.map((part) => (part in MARKS ? h('span.blank', {}, MARKS[part]) : part));
}

// How values are written below tokens, where there is little room: in a power of ten of the largest,
// its note empty where that is 1, and all to the same decimals. Titles have the numbers themselves.
function shortener(largest) {
  const power = largest < 0.095 || largest >= 999.5 ? Math.floor(Math.log10(largest)) : 0;
  const decimals = largest / 10 ** power < 0.95 ? 2 : largest / 10 ** power < 99.5 ? 1 : 0;
  const short = (value) => {
    const text = (Math.abs(value) / 10 ** power).toFixed(decimals);
    return value < 0 && /[1-9]/.test(text) ? `${MINUS}${text}` : text;
  };
  return { short, note: power ? `Below tokens: in units of 1${timesPower(power)}.` : '' };
}

function saveTokens(t, tokens) {
  const scored = tokens.scores ?? [];
  saveCsv(
    `target_${t}_tokens`,
    [
      'position',
      'token',
      'loss_left_out',
      'standard_error_left_out',
      'loss_trained_on',
      'standard_error_trained_on',
      ...scored.map(([example]) => `score_of_example_${example}`),
    ],
    tokens.texts.map((text, k) => [
      k,
      text,
      ...['out', 'out_error', 'in', 'in_error'].map((name) => tokens[name][k]),
      ...scored.map(([, values]) => values[k]),
    ]),
  );
}
