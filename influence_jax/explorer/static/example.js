// An example's page: what it is, and whom it influences.
import { formatNumber } from './numbers.js';
import { WHISKERS, button, h, saveCsv, section, thumbnail, whiskerScale } from './dom.js';
import { ENTRY_COLUMNS, entryList, exampleEntry } from './entries.js';
import { sideBySide } from './records.js';

export async function exampleView({ run, body, key }) {
  const i = Number(key);
  if (!(i >= 0 && i < run.about.examples))
    throw new Error(`There is no example ${key}; examples are 0 to ${run.about.examples - 1}.`);
  const [targets, found] = await Promise.all([run.targets(), run.example(i)]);
  document.title = `${found.name.slice(0, 80)} · ${run.about.title}`;
  const own = found.target ?? -1;
  body.append(
    h('nav.steps', { 'aria-label': 'Up' }, h('a', { href: run.address('targets') }, '← Table')),
    h(
      '.subject',
      {},
      thumbnail(run, i, 112, found.name),
      h(
        '.subject-text',
        {},
        h('h1', {}, found.name.slice(0, 300)),
        h('p.how', {}, [`training ${run.about.noun} ${i}`, found.label].filter(Boolean).join(' · ')),
        own >= 0 ? h('p', {}, h('a', { href: run.address('target', own) }, 'What influences it, as a target →')) : null,
      ),
    ),
  );
  const others = found.outgoing; // without itself
  const scale = whiskerScale(others);
  const describe = (t) => ({
    address: run.address('target', t),
    picture: thumbnail(run, targets.example[t], 36),
    name: h('span.clip', {}, targets.name(t).slice(0, 200)),
  });
  const lists = [
    ['Lowers the loss of', 1],
    ['Raises the loss of', -1],
  ]
    .map(([title, sign]) => [title, others.filter(([, value]) => value * sign > 0)])
    .filter(([, rows]) => rows.length)
    .map(([title, rows]) => h('.card', {}, h('h3', {}, title), entryList(rows, scale, describe)));
  const save = () =>
    saveCsv(
      `example_${i}_influences`,
      ['target', 'id', 'name', ...ENTRY_COLUMNS],
      others.map(([t, ...rest]) => [t, targets.ids[t], targets.name(t), ...rest]),
    );
  body.append(
    lists.length
      ? section(
          'Whom it influences',
          `Among the strongest influences that are stored of each target, strongest first. ${WHISKERS}${found.self ? ` On itself: ${formatNumber(found.self[0])} ± ${formatNumber(found.self[1])}.` : ''}`,
          h('.two', {}, lists),
          [button('CSV', save)],
        )
      : h('p.state', {}, 'It is not among the strongest influences of any other target.'),
  );
  if (found.text || found.prompt || found.completion) body.append(section('Record', '', sideBySide(run, found, null)));
  if (found.row && run.about.table_columns)
    body.append(
      section(
        'Features',
        '',
        h(
          'dl.card.facts',
          {},
          run.about.table_columns.map((name, k) => [h('dt', {}, name), h('dd', {}, String(found.row[k]))]),
        ),
      ),
    );
  if (found.group?.length) {
    body.append(
      section(
        'Its group',
        'Examples that belong together, or do the same.',
        h(
          'ul.entries.card',
          {},
          found.group.map((other) => {
            const { picture, name, address } = exampleEntry(run, other);
            return h('li', {}, h(`a.entry${picture ? '.pictured' : ''}`, { href: address }, picture, name));
          }),
        ),
      ),
    );
  }
  return {
    keys: {
      Escape: () => {
        history.back();
      },
    },
  };
}
