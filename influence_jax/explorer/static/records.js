// Records beside each other: texts with the words that differ marked, rows of tables by feature.
import { formatNumber } from './numbers.js';
import { fillLater, h, section, select } from './dom.js';
import { exampleAddress } from './entries.js';
import { hasTokenScores, tokenScores } from './tokens.js';

// Records beside each other: texts with the words that differ marked, rows of tables by feature.
export function recordsSection(run, example, influencers, tokens) {
  if (example < 0) return null;
  if (run.about.table_columns)
    return rowsSection(
      run,
      example,
      influencers.slice(0, 4).map(([other]) => other),
    );
  if (run.about.noun !== 'record') return null;
  const host = h('div');
  const others = influencers.slice(0, 24).map(([other]) => other);
  const show = (other) =>
    fillLater(host, Promise.all([run.example(example), other === null ? null : run.example(other)]), ([left, right]) => [
      sideBySide(run, left, right),
      other === null ? null : tokenScores(run, tokens, other),
    ]);
  const first = others.find((other) => hasTokenScores(tokens, other)) ?? others[0] ?? null;
  show(first);
  const choice =
    others.length > 1
      ? select(
          'Beside it',
          others.map((other) => [other, (run.knownName(other) ?? `example ${other}`).slice(0, 80)]),
          first,
          (value) => show(Number(value)),
        )
      : null;
  return section(
    'Records',
    others.length ? 'The record and what influences it, with the words that differ marked.' : '',
    host,
    choice ? [choice] : [],
  );
}

function fieldsOf(document_) {
  if (!document_) return {};
  const { prompt, completion, text, change } = document_;
  return prompt || completion
    ? { Prompt: prompt ?? '', Completion: completion ?? '', Change: change ?? '' }
    : { Text: text ?? '', Change: change ?? '' };
}

export function sideBySide(run, left, right) {
  const [a, b] = [fieldsOf(left), fieldsOf(right)];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => a[name] || b[name]);
  const column = (document_, side) =>
    document_ &&
    h(
      'article.card.text-record',
      {},
      h(
        'h3',
        {},
        side === 0
          ? 'This record'
          : h('a', { href: exampleAddress(run, document_.example) }, document_.name.slice(0, 200)),
      ),
      // A change is of one of the two alone.
      names.filter((name) => name !== 'Change' || (side === 0 ? a : b)[name]).map((name) => [
        h('h4', {}, name),
        h(
          'p.text',
          {},
          right && name !== 'Change'
            ? markedDifferences(a[name] ?? '', b[name] ?? '')[side]
            : shorten((side === 0 ? a : b)[name] ?? ''),
        ),
      ]),
    );
  return h('.two', {}, column(left, 0), column(right, 1));
}

function rowsSection(run, example, others) {
  const host = h('.card.scroll');
  fillLater(host, Promise.all([example, ...others].map((each) => run.example(each))), (documents) => {
    const heads = documents.map((document_, k) =>
      h(
        'th',
        { scope: 'col' },
        k === 0
          ? 'This example'
          : h('a', { href: exampleAddress(run, document_.example) }, document_.name.slice(0, 60)),
      ),
    );
    const rows = run.about.table_columns.map((name, k) =>
      h(
        'tr',
        {},
        h('th', { scope: 'row' }, name),
        documents.map((document_) => {
          const value = document_.row?.[k] ?? '–';
          return h('td', {}, value === (documents[0].row?.[k] ?? '–') ? String(value) : h('mark', {}, String(value)));
        }),
      ),
    );
    return h(
      'table',
      {},
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Feature'), heads)),
      h('tbody', {}, rows),
    );
  });
  return section('Features', 'Beside its strongest influencers; what differs is marked.', host);
}

// Text cut to `limit` characters, so that a record of a megabyte costs no more than a page.
export function shorten(text, limit = 4000) {
  return text.length > limit
    ? `${text.slice(0, limit)} … (${(text.length - limit).toLocaleString('en-US')} more characters)`
    : text;
}

const MOST_WORDS = 700;

// Two texts as elements in which the words that differ are marked; too long ones are not compared.
export function markedDifferences(left, right) {
  const [a, b] = [left, right].map((text) => shorten(text).split(/(\s+)/).filter(Boolean));
  const common = a.length > MOST_WORDS || b.length > MOST_WORDS ? null : commonWords(a, b);
  const render = (words, kept) => {
    if (!kept) return [words.join('')];
    return words.map((word, k) => (kept[k] || !word.trim() ? word : h('mark', {}, word)));
  };
  return [render(a, common?.[0]), render(b, common?.[1])];
}

// Which words of both belong to a longest common subsequence.
function commonWords(a, b) {
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const below = lengths[(i + 1) * width + j];
      const beside = lengths[i * width + j + 1];
      const diagonal = lengths[(i + 1) * width + j + 1] + 1;
      lengths[i * width + j] = a[i] === b[j] ? diagonal : Math.max(below, beside);
    }
  }
  const kept = [new Array(a.length).fill(false), new Array(b.length).fill(false)];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) kept[0][i++] = kept[1][j++] = true;
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
    else j++;
  }
  return kept;
}
