// A target's page: what is known of it, because of which others, and what cheaper methods say.
import { Request } from './data.js';
import { formatCount, formatNumber } from './numbers.js';
import { WHISKERS, button, estimate, fillLater, h, saveCsv, section, thumbnail, verdictChip, whiskerScale } from './dom.js';
import { ENTRY_COLUMNS, entryList, exampleEntry } from './entries.js';
import { entryLookup } from './pairs.js';
import { recordsSection } from './records.js';
import { distributionSection, lossesSection } from './distributions.js';
import { tokensSection } from './tokens.js';

export async function targetView({ run, body, index, openRun, key, query }) {
  const t = Number(key);
  const targets = await run.targets();
  if (!(t >= 0 && t < targets.length))
    throw new Error(`There is no target ${key}; targets are 0 to ${targets.length - 1}.`);
  const request = new Request(query);
  const order = targets.select(request);
  const place = order.indexOf(t);
  const address = (other) => run.address('target', other, request.query);
  const [before, after] = [order[place - 1], place < 0 ? undefined : order[place + 1]];
  // From Compare: its own state, to go back to, is part of the address.
  const compared = request.query.get('compare');
  const back = compared === null ? run.address('targets', '', request.query) : `#/compare?${compared}`;
  document.title = `${targets.name(t).slice(0, 80)} · ${run.about.title}`;

  body.append(
    h(
      'nav.steps',
      { 'aria-label': 'Targets in the order of the table' },
      h('a', { href: back }, compared === null ? '← Table' : '← Compare'),
      h('span.muted', {}, place < 0 ? '' : `${formatCount(place + 1)} of ${formatCount(order.length)}`),
      stepLink('Previous', before, address),
      stepLink('Next', after, address),
      index.compared ? twinLink(index, openRun, run, targets.ids[t], compared) : null,
    ),
    targetHeader(run, targets, t),
  );
  const rest = h('.parts');
  body.append(rest);
  fillLater(rest, run.target(t), (document_) => targetParts(run, targets, t, document_));
  const go = (other) => () => {
    if (other !== undefined) location.hash = address(other);
  };
  return {
    keys: {
      j: go(after),
      ArrowRight: go(after),
      k: go(before),
      ArrowLeft: go(before),
      Escape: () => {
        location.hash = back;
      },
    },
  };
}

function stepLink(label, t, address) {
  return t === undefined
    ? h('span.button.off', { 'aria-disabled': 'true' }, label)
    : h('a.button', { href: address(t) }, label);
}

// The target of the same id in the other run, once that is read; nothing where it cannot be.
function twinLink(index, openRun, run, id, compared) {
  const { name } = index.runs[1 - run.index];
  const host = h('span');
  const find = async () => {
    const other = await openRun(1 - run.index);
    const twin = (await other.targets()).ids.indexOf(id);
    const query = compared === null ? '' : new URLSearchParams({ compare: compared });
    host.replaceChildren(
      twin < 0
        ? h('span.muted', {}, `not in ${name}`)
        : h('a', { href: other.address('target', twin, query) }, `The same in ${name} →`),
    );
  };
  find().catch(() => {});
  return host;
}

function targetHeader(run, targets, t) {
  const example = targets.example[t];
  const values = targets.quantities.filter(({ name }) =>
    ['self_influence', 'margin', 'other_value', 'effective_members', 'mean_loss', 'vulnerability'].includes(name),
  );
  const keys = values.map(({ name, title, help, error }) =>
    h(
      'li',
      { title: help || null },
      estimate(targets.column(name)[t], targets.column(error)?.[t]),
      h('span', {}, title),
    ),
  );
  return h(
    '.subject',
    {},
    thumbnail(run, example, 112, targets.name(t)),
    h(
      '.subject-text',
      {},
      h('h1', {}, targets.name(t).slice(0, 300)),
      h(
        'p.how',
        {},
        [targets.ids[t] !== targets.name(t) ? targets.ids[t] : '', targets.label(t)]
          .filter(Boolean)
          .join(' · ')
          .slice(0, 400),
        ' ',
        verdictChip(run.verdict(targets.verdicts[t])),
      ),
      h('ul.keys', {}, keys),
      example >= 0
        ? h(
            'p',
            {},
            h('a', { href: run.address('example', example) }, `What it influences as a training ${run.about.noun} →`),
          )
        : null,
    ),
  );
}

function targetParts(run, targets, t, found) {
  const { influencers } = found;

  const strongest = [...influencers.positive, ...influencers.negative].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const parts = [
    found.note ? h('p.note', {}, found.note) : null,
    distributionSection(run, targets, t, found, strongest),
    strongest.length ? influencersSection(run, t, influencers, entryLookup(run, targets, t, found)) : null,
    recordsSection(run, targets.example[t], influencers.positive.concat(influencers.negative), found.tokens),
    tokensSection(run, t, found.tokens),
    found.losses ? lossesSection(run, t, found.losses) : null,
    vulnerabilitySection(found.vulnerability),
    found.attribution?.length ? attributionSection(run, found) : null,
  ];
  return parts.filter(Boolean);
}

function influencersSection(run, t, { positive, negative }, lookup) {
  const all = [...positive, ...negative];
  const scale = whiskerScale(all);
  const lists = [
    ['Help: the loss here is lower with them', positive],
    ['Hurt: the loss here is higher with them', negative],
  ]
    .filter(([, rows]) => rows.length)
    .map(([title, rows]) =>
      h(
        '.card',
        {},
        h('h3', {}, title),
        entryList(rows, scale, (example) => exampleEntry(run, example)),
      ),
    );
  const save = async () => {
    const rows = await Promise.all(
      all.map(async ([example, ...rest]) => [
        example,
        await run.exampleId(example),
        await run.exampleName(example),
        ...rest,
      ]),
    );
    saveCsv(`target_${t}_influences`, ['example', 'id', 'name', ...ENTRY_COLUMNS], rows);
  };
  return section(
    'Because of which others',
    `Strongest first. Those in gray do not stand out from noise. ${WHISKERS} Values of significant pairs are too large on average, having been chosen for their size; cross-fitted ones are not. Each leads to its own page.`,
    [h('.two', {}, lists), lookup],
    [button('CSV', save)],
  );
}

function vulnerabilitySection(found) {
  if (!found || !Number.isFinite(found.rate)) return null;
  const percent = (value) => `${formatNumber(100 * value)} %`;
  const facts = [
    [
      'Found',
      `${percent(found.rate)} of the members that were trained on it${Number.isFinite(found.low) ? ` (${percent(found.low)} to ${percent(found.high)})` : ''}`,
    ],
    [
      'Falsely accused',
      Number.isFinite(found.false_alarms)
        ? `${percent(found.false_alarms)} of the others${found.false_positive_rate ? `, at a threshold for ${percent(found.false_positive_rate)}` : ''}`
        : null,
    ],
    ['Area under the curve', Number.isFinite(found.auroc) ? estimate(found.auroc, found.auroc_error) : null],
    ['At risk', found.at_risk ? 'yes' : 'no'],
  ];
  const how = `What an attacker who sees its loss learns of who was trained on it${found.attack ? `, by ${found.attack}` : ''}.`;
  return section(
    'Membership',
    how,
    h(
      'dl.card.facts',
      {},
      facts.filter(([, text]) => text !== null).map(([name, text]) => [h('dt', {}, name), h('dd', {}, text)]),
    ),
  );
}

function attributionSection(run, found) {
  const standing = new Set(
    [...found.influencers.positive, ...found.influencers.negative]
      .filter(([, , , standsOut]) => standsOut)
      .map(([example]) => example),
  );
  const list = (title, about, rows) =>
    h(
      '.card',
      {},
      h('h3', {}, title),
      about ? h('p.small', {}, about) : null,
      h(
        'ol.entries',
        {},
        rows.slice(0, 10).map(([example, score]) => {
          const { address, picture, name } = exampleEntry(run, example);
          return h(
            `li${standing.has(example) ? '' : '.noise'}`,
            {},
            h(
              `a.entry.short${picture ? '.pictured' : ''}`,
              { href: address },
              picture,
              name,
              h('span.number', {}, formatNumber(score)),
            ),
          );
        }),
      ),
    );
  const methods = found.attribution.map(({ method, unit, self, margin, influencers }) =>
    list(
      method,
      [
        self === null || self === undefined ? '' : `itself ${formatNumber(self)}${unit ? ` ${unit}` : ''}`,
        margin === null || margin === undefined ? '' : `margin ${formatNumber(margin)}`,
      ]
        .filter(Boolean)
        .join(' · '),
      influencers.filter(([example]) => example !== found.example),
    ),
  );
  const ensemble = list(
    'The ensemble',
    [
      found.self ? `itself ${formatNumber(found.self[0])} ${run.about.unit}` : '',
      found.margin === null ? '' : `margin ${formatNumber(found.margin)}`,
    ]
      .filter(Boolean)
      .join(' · '),
    found.influencers.positive,
  );
  return section(
    'Beside the ensemble: cheaper methods',
    'The largest scores of each. In gray: examples that do not stand out in the ensemble.',
    h('.columns', {}, ensemble, methods),
  );
}
