// Search, filters and the choice of columns above the table.
import { Request } from './data.js';
import { formatCount, formatNumber } from './numbers.js';
import { h, select } from './dom.js';

// Search, verdicts, class and ranges; `go` makes an entry in the history, `replace` does not.
export function filterBar(run, targets, current, go, replace) {
  let waiting = 0;
  const search = h('input', {
    type: 'search',
    placeholder: 'Search id, name, class',
    'aria-label': 'Search id, name or class',
    spellcheck: 'false',
    autocomplete: 'off',
    oninput: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => replace({ q: search.value }), 90);
    },
    onkeydown: (event) => {
      if (event.key !== 'Enter') return;
      const found = targets.select(new Request(current().with({ q: search.value })));
      if (found.length === 1) location.hash = run.address('target', found[0]);
    },
  });
  const counts = run.about.verdicts.map(() => 0);
  for (const code of targets.verdicts) if (code in counts) counts[code]++;
  const verdicts = run.about.verdicts
    .map(
      ({ name, title, help }, code) =>
        counts[code] &&
        h(
          'button.toggle',
          {
            type: 'button',
            'data-verdict': name,
            title: help,
            'aria-pressed': 'false',
            onclick: () => {
              const chosen = new Set(current().verdicts);
              if (!chosen.delete(name)) chosen.add(name);
              go({ verdict: [...chosen].join(',') });
            },
          },
          title,
          h('small', {}, formatCount(counts[code])),
        ),
    )
    .filter(Boolean);
  const { classes } = run.about;
  const classList =
    classes?.length > 1
      ? select('Class', [[-1, 'every class'], ...classes.map((name, code) => [code, name])], -1, (value) =>
          go({ class: value === '-1' ? null : value }),
        )
      : null;
  const chips = h('.chips');
  const element = h(
    '.filter-controls',
    {},
    search,
    h('.toggles', { role: 'group', 'aria-label': 'Verdicts' }, verdicts),
    classList,
    rangeAdder(targets, current, go),
  );

  function update(request) {
    if (document.activeElement !== search) search.value = request.q;
    for (const toggle of verdicts)
      toggle.setAttribute('aria-pressed', String(request.verdicts.has(toggle.dataset.verdict)));
    if (classList) classList.querySelector('select').value = String(request.label);
    const title = (name) => run.quantities.get(name)?.title ?? name;
    const remove = (text, changes) =>
      h(
        'span.filter-chip',
        {},
        text,
        h('button', { type: 'button', 'aria-label': `Remove: ${text}`, onclick: () => go(changes) }, '×'),
      );
    const ranges = request.query.getAll('range');
    chips.replaceChildren(
      ...request.ranges.map(({ name, low, high }, k) =>
        remove(
          `${title(name)} ${Number.isFinite(low) ? `≥ ${formatNumber(low)}` : ''} ${Number.isFinite(high) ? `≤ ${formatNumber(high)}` : ''}`
            .replace(/ +/g, ' ')
            .trim(),
          { range: ranges.filter((_, j) => j !== k) },
        ),
      ),
      ...(request.lasso
        ? [
            remove(
              `${formatCount(targets.select(new Request(`lasso=${encodeURIComponent(request.query.get('lasso'))}`)).length)} selected on the map`,
              { lasso: null },
            ),
          ]
        : []),
    );
  }
  return { element, chips, update };
}

function rangeAdder(targets, current, go) {
  const quantities = targets.quantities;
  if (!quantities.length) return null;
  let name = quantities[0].name;
  const bound = (label) => h('input', { type: 'number', step: 'any', 'aria-label': label, placeholder: label });
  const [low, high] = [bound('at least'), bound('at most')];
  const panel = popover(
    'Range',
    h(
      'form',
      {
        onsubmit: (event) => {
          event.preventDefault();
          if (low.value === '' && high.value === '') return;
          panel.open = false;
          go({
            range: [
              ...current()
                .query.getAll('range')
                .filter((text) => !text.startsWith(`${name}:`)),
              `${name}:${low.value}:${high.value}`,
            ],
          });
        },
      },
      select(
        'Quantity',
        quantities.map((quantity) => [quantity.name, quantity.title]),
        name,
        (value) => {
          name = value;
        },
      ),
      low,
      high,
      h('button.button', {}, 'Apply'),
    ),
  );
  return panel;
}

export function columnChooser(columns, current, go) {
  const boxes = columns.all.map(({ key }) =>
    h('input', {
      type: 'checkbox',
      value: key,
      onchange: () =>
        go({
          columns: boxes
            .filter(({ checked }) => checked)
            .map(({ value }) => value)
            .join(','),
        }),
    }),
  );
  const element = popover(
    'Columns',
    h(
      'fieldset',
      {},
      h('legend', {}, 'Columns'),
      boxes.map((box, k) => h('label', {}, box, columns.all[k].title)),
    ),
  );
  const update = (chosen) => {
    const keys = new Set(chosen.map(({ key }) => key));
    for (const box of boxes) box.checked = keys.has(box.value);
  };
  return { element, update };
}

// A button that opens a panel; closed by Esc and by a click elsewhere.
function popover(label, content) {
  const panel = h(
    'details.popover',
    {
      onkeydown: (event) => {
        if (event.key !== 'Escape') return;
        event.stopPropagation();
        panel.open = false;
        panel.querySelector('summary').focus();
      },
      onfocusout: (event) => {
        if (event.relatedTarget && !panel.contains(event.relatedTarget)) panel.open = false;
      },
    },
    h('summary.button', {}, label),
    h('.panel', {}, content),
  );
  return panel;
}
