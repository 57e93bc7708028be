// How good the results are: membership inference, convergence, and the judge's leaderboard.
import { decode } from './data.js';
import { LINEAR, Scale, formatCount, formatNumber } from './numbers.js';
import { button, documentPage, h, saveCsv, section } from './dom.js';
import { chart, legend, nearest, paddedRange, plot } from './charts.js';

export async function membershipView({ run, body }) {
  return documentPage(
    body,
    run,
    'membership',
    'Membership inference',
    'How well an attacker tells members from others: true positives against false positives, on logarithmic axes, as what matters is on the left.',
    ({ attacks, notes }) => {
      const curves = attacks.map((attack) => ({
        ...attack,
        fpr: [...decode(attack.fpr)],
        tpr: [...decode(attack.tpr)],
      }));
      const floor = Math.max(1e-5, Math.min(1e-3, ...curves.flatMap(({ fpr }) => fpr.filter((value) => value > 0))));
      const log = new Scale('log');
      const position = (value) => log.forward(Math.max(value, floor));
      const element = chart({
        name: 'roc',
        height: 440,
        alt: `Receiver operating curves of ${curves.map(({ title, auc }) => `${title}, area ${formatNumber(auc)}`).join('; ')}.`,
        build: (Bokeh, theme) => {
          const range = [log.forward(floor), 0.02];
          const lines = curves.map(({ fpr, tpr }) => [fpr.map(position), tpr.map(position)]);
          const figure = plot(Bokeh, theme, {
            x: { title: 'False positive rate', scale: log, range },
            y: { title: 'True positive rate', scale: log, range },
            drag: 'box_zoom',
            hover: (x, y, near) => {
              for (const [k, [xs, ys]] of lines.entries()) {
                const point = nearest(xs, ys, near);
                if (point >= 0)
                  return h(
                    'span',
                    {},
                    h('b', {}, curves[k].title),
                    h('br'),
                    `${formatNumber(curves[k].tpr[point])} of members at ${formatNumber(curves[k].fpr[point])} false positives`,
                  );
              }
              return null;
            },
          });
          figure.line([range[0], 0], [range[0], 0], { line_color: theme.muted, line_dash: [4, 4], line_width: 1 });
          lines.forEach(([xs, ys], k) => figure.line(xs, ys, { line_color: theme.classes[k % 7], line_width: 2 }));
          return figure;
        },
      });
      const rates = [...new Set(curves.flatMap(({ tpr_at: at }) => (at ?? []).map(([fpr]) => fpr)))].sort(
        (a, b) => a - b,
      );
      const cell = (attack, rate) => {
        const found = (attack.tpr_at ?? []).find(([fpr]) => fpr === rate);
        const records = (attack.tpr_at_over_records ?? []).find(([fpr]) => fpr === rate);
        return found ? [withBounds(found.slice(1)), overRecords(records?.slice(2))] : '–';
      };
      const table = plainTable(
        ['Attack', 'Area', ...rates.map((rate) => `TPR at ${formatNumber(100 * rate)} % FPR`)],
        curves.map((attack) => [
          attack.title,
          [withBounds([attack.auc, ...(attack.auc_over_members ?? [])]), overRecords(attack.auc_over_records)],
          ...rates.map((rate) => cell(attack, rate)),
        ]),
      );
      const save = () =>
        saveCsv(
          'roc',
          ['attack', 'fpr', 'tpr'],
          curves.flatMap(({ name, fpr, tpr }) => fpr.map((value, k) => [name, value, tpr[k]])),
        );
      return [
        legend([...curves.map(({ title }, k) => [`var(--class-${k % 7})`, title]), ['var(--muted)', 'guessing']]),
        element,
        section('Rates', 'With 95 % intervals over the models and, below, over the records.', table, [button('CSV', save)]),
        ...(notes ?? []).map((text) => h('p.how', {}, text)),
      ];
    },
  );
}

function plainTable(head, rows) {
  return h(
    '.card.scroll',
    {},
    h(
      'table',
      {},
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          head.map((text) => h('th', { scope: 'col' }, text)),
        ),
      ),
      h(
        'tbody',
        {},
        rows.map((row) =>
          h(
            'tr',
            {},
            row.map((cell, k) => h(k === 0 ? 'th' : 'td', k === 0 ? { scope: 'row' } : {}, cell)),
          ),
        ),
      ),
    ),
  );
}

const AGREEMENT = {
  self_influence: 'self-influence',
  off_diagonal: 'all other entries',
  significant: 'significant pairs',
  margin: 'margins (ranks)',
};

export async function convergenceView({ run, body }) {
  return documentPage(
    body,
    run,
    'convergence',
    'Convergence',
    `What an ensemble of so many members can tell, fewer or more than the ${formatCount(run.about.members)} of this one.`,
    (found) => {
      const names = Object.keys(AGREEMENT).filter((name) => found.agreement[name]?.some(Number.isFinite));
      const log = new Scale('log');
      const xs = found.members.map((members) => log.forward(members));
      const sizes = found.predicted.map(({ members }) => members);
      const px = sizes.map((members) => log.forward(members));
      const lowest = Math.min(0, ...names.flatMap((name) => found.agreement[name].filter(Number.isFinite)));
      const element = chart({
        name: 'convergence',
        height: 340,
        alt: `Agreement of two ensembles against their size; measured up to ${found.members.at(-1)} members each.`,
        build: (Bokeh, theme) => {
          const figure = plot(Bokeh, theme, {
            x: { title: 'Members of each of two ensembles', scale: log, range: paddedRange([...xs, ...px], 0.05), ticks: sizes },
            y: { title: 'Correlation of the two', scale: LINEAR, range: [lowest, 1.03] },
            drag: 'box_zoom',
            hover: (x, y, near) => {
              for (const name of names) {
                const k = nearest(xs, found.agreement[name], near);
                if (k >= 0)
                  return h(
                    'span',
                    {},
                    h('b', {}, AGREEMENT[name]),
                    h('br'),
                    `${formatNumber(found.agreement[name][k])} at ${found.members[k]} members`,
                  );
              }
              return null;
            },
          });
          names.forEach((name, k) => {
            const known = [...xs.keys()].filter((j) => Number.isFinite(found.agreement[name][j]));
            const [ax, ay] = [known.map((j) => xs[j]), known.map((j) => found.agreement[name][j])];
            figure.line(ax, ay, { line_color: theme.classes[k], line_width: 2 });
            const foretold = found.predicted.map(({ reliability }) => reliability[name] ?? NaN);
            figure.line(px, foretold, { line_color: theme.classes[k], line_width: 1.5, line_dash: [5, 4] });
            figure.scatter(ax, ay, { size: 6, fill_color: theme.classes[k], line_color: theme.card });
          });
          return figure;
        },
      });
      const unit = run.about.unit ? ` (${run.about.unit})` : '';
      const known = names.filter((name) =>
        found.predicted.some(({ reliability }) => Number.isFinite(reliability[name])),
      );
      const head = [
        'Members',
        `Error of an entry${unit}`,
        `Error of self-influence${unit}`,
        'Significant pairs of today still listed',
        `Smallest influence listed${unit}`,
        ...known.map((name) => `Reliability: ${AGREEMENT[name]}`),
      ];
      const rows = found.predicted.map(({ members, reliability, ...at }) => [
        [formatCount(members), members === found.current ? h('small.muted', {}, ' now') : null],
        formatNumber(at.standard_error),
        formatNumber(at.self_standard_error),
        stillListed(at.still_listed, found.pairs, members > found.current),
        formatNumber(at.least_listed),
        ...known.map((name) => formatNumber(reliability[name])),
      ]);
      const save = () =>
        saveCsv(
          'convergence',
          ['members', 'measured', 'standard_error', 'self_standard_error', 'still_listed', 'least_listed', ...names],
          [
            ...found.members.map((members, k) => [
              members,
              1,
              ...Array(4).fill(null),
              ...names.map((name) => found.agreement[name][k]),
            ]),
            ...found.predicted.map(({ members, reliability, ...at }) => [
              members,
              0,
              at.standard_error,
              at.self_standard_error,
              at.still_listed,
              at.least_listed,
              ...names.map((name) => reliability[name]),
            ]),
          ],
        );
      return [
        legend(names.map((name, k) => [`var(--class-${k})`, AGREEMENT[name]])),
        element,
        h('p.how', {}, 'Solid: measured between disjoint parts of this ensemble, two of each size. Dashed: foretold from the largest; of margins, which are ratios, an upper bound.'),
        section(
          'What fewer or more members give',
          'Standard errors fall with the root of the number of members. Pairs still listed: today’s values with the errors of that size, tested anew; not foretold are the pairs that another size lists and this one does not. Smallest influence listed: of typical noise. Reliability: the correlation with as many new members (Spearman and Brown).',
          plainTable(head, rows),
          [button('CSV', save)],
        ),
      ];
    },
  );
}

function stillListed(count, all, isLarger) {
  if (!all) return '–';
  if (isLarger) return 'nearly all, and more';
  return `${formatCount(count)} (${Math.round((100 * count) / all)} %)`;
}

// [value, low, high] as a number with its interval.
function overRecords([low, high] = []) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return null;
  return h('div.error', {}, `records ${formatNumber(low)} to ${formatNumber(high)}`);
}

function withBounds([value, low, high]) {
  return [
    h('b', {}, formatNumber(value)),
    Number.isFinite(low) && Number.isFinite(high)
      ? h('span.error', {}, ` ${formatNumber(low)} to ${formatNumber(high)}`)
      : null,
  ];
}

export async function leaderboardView({ run, body }) {
  return documentPage(
    body,
    run,
    'leaderboard',
    'Leaderboard',
    'Methods of attribution, judged against what training shows. A click on a head sorts.',
    ({ header, rows }) => {
      const host = h('div');
      let [sorted, sign] = [-1, 1];
      const number = (text) => (text.trim() === '' ? NaN : Number(text));
      const show = () => {
        const order = [...rows];
        if (sorted >= 0)
          order.sort((a, b) => {
            const [p, q] = [number(a[sorted]), number(b[sorted])];
            if (Number.isNaN(p) && Number.isNaN(q)) return sign * a[sorted].localeCompare(b[sorted]);
            return Number.isNaN(p) - Number.isNaN(q) || sign * (p - q);
          });
        const heads = header.map((text, k) =>
          h(
            'button.head',
            {
              type: 'button',
              onclick: () => {
                sign = sorted === k ? -sign : rows.some((row) => Number.isFinite(number(row[k]))) ? -1 : 1;
                sorted = k;
                show();
              },
            },
            text.replaceAll('_', ' '),
            sorted === k ? (sign > 0 ? ' ↑' : ' ↓') : '',
          ),
        );
        host.replaceChildren(
          plainTable(
            heads,
            order.map((row) =>
              row.map((text) => (text !== '' && Number.isFinite(Number(text)) ? formatNumber(Number(text)) : text)),
            ),
          ),
        );
      };
      show();
      return [
        h(
          '.section-tools',
          {},
          button('CSV', () => saveCsv('leaderboard', header, rows)),
        ),
        host,
      ];
    },
  );
}
