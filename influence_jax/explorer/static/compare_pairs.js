// Significant pairs of two runs: those in both, and those that one alone lists.
import { decode } from './data.js';
import { columnDecimals, formatCount } from './numbers.js';
import { button, estimate, h, saveCsv, section } from './dom.js';
import { exampleAddress } from './entries.js';
import { VirtualTable } from './table.js';

const LISTED = ['both', 'first', 'second'];

// The table, with its state in the address: `pairs` of LISTED, and `pair_sort`.
export class PairsOfBoth {
  #rows = [];
  #parameters = new URLSearchParams();

  // `change` takes what is to be different in the address; `wayBack` gives the query of pages that are opened.
  static async of({ runs, pairs, names, change, wayBack }) {
    const examples = await Promise.all(runs.map((run) => run.document('examples')));
    const targets = await Promise.all(runs.map((run) => run.targets()));
    return new PairsOfBoth({ runs, pairs, names, change, wayBack, examples, targets });
  }

  constructor({ runs, pairs, names, change, wayBack, examples, targets }) {
    Object.assign(this, { runs, names, wayBack, all: examples, tables: targets });
    [this.examples, this.targets] = [pairs.examples, pairs.targets].map((of) => of.map(decode));
    this.listed = decode(pairs.listed);
    this.columns = Object.fromEntries(Object.entries(pairs.columns).map(([name, column]) => [name, decode(column)]));
    this.table = new VirtualTable({
      label: 'Significant pairs of both runs',
      address: (k) => this.#target(0, k),
      sort: (key) => change({ pair_sort: this.#parameters.get('pair_sort') === `-${key}` ? key : `-${key}` }),
      empty: () => h('p', {}, 'No pair here.'),
    });
    this.table.element.classList.add('short');
    this.counted = h('span.count.pair-count', { role: 'status' });
    const titles = ['in both', `in ${names[0]} alone`, `in ${names[1]} alone`];
    this.buttons = LISTED.map((name, code) =>
      button(
        `${formatCount(pairs[name])} ${titles[code]}`,
        () => change({ pairs: this.#parameters.get('pairs') === name ? null : name }),
        { 'data-pairs': name, 'aria-pressed': 'false' },
      ),
    );
    this.shown = this.#columns();
    const cut = pairs.both + pairs.first + pairs.second - this.listed.length;
    this.section = section(
      'Which influences are new, and which are lost?',
      `Significant pairs of examples and targets that both runs have. A pair that one alone lists need not have changed: it may be near the threshold. A value is missing where it is neither listed, nor among the stored strongest, nor estimated again. ± is one standard error.${cut ? ` Here are the largest ${formatCount(this.listed.length)}.` : ''}`,
      [
        h(
          '.filters',
          {},
          h('.filter-controls.verdicts', {}, this.buttons),
          h('.actions', {}, this.counted, button('CSV', () => this.#save(), { 'aria-label': 'CSV of pairs' })),
        ),
        this.table.element,
      ],
    );
  }

  #columns() {
    const link = (address, id, name) =>
      h(
        'a.record',
        { href: address, tabindex: '-1', title: name },
        h('span.name', {}, id, id === name ? null : h('small', {}, name.slice(0, 200))),
      );
    const value = (number) => {
      const [values, errors] = [this.columns[`value_${number}`], this.columns[`error_${number}`]];
      const decimals = columnDecimals([...values].slice(0, 2000), [...errors].slice(0, 2000));
      return {
        key: `value_${number}`,
        title: this.names[number],
        numeric: true,
        width: [190, 0],
        cell: (k) =>
          h(
            'a',
            { href: this.#target(number, k), tabindex: '-1' },
            Number.isFinite(values[k]) ? estimate(values[k], errors[k], decimals) : 'not stored',
          ),
      };
    };
    const [run] = this.runs;
    return [
      {
        key: 'example',
        title: 'Influence of',
        width: [150, 1],
        cell: (k) => link(exampleAddress(run, this.examples[0][k]), this.#exampleId(k), this.#exampleName(k)),
      },
      {
        key: 'target',
        title: 'on',
        width: [150, 1],
        cell: (k) => link(this.#target(0, k), this.#targetId(k), this.#targetName(k)),
      },
      value(0),
      value(1),
      {
        key: 'listed',
        title: 'Listed',
        width: [120, 0],
        cell: (k) => ['in both', 'first alone', 'second alone'][this.listed[k]],
      },
    ];
  }

  #target(number, k) {
    return this.runs[number].address('target', this.targets[number][k], this.wayBack());
  }

  #exampleId(k) {
    return this.all[0].ids[this.examples[0][k]];
  }

  #exampleName(k) {
    return this.all[0].names[this.examples[0][k]];
  }

  #targetId(k) {
    return this.tables[0].ids[this.targets[0][k]];
  }

  #targetName(k) {
    return this.tables[0].name(this.targets[0][k]);
  }

  #save() {
    const names = Object.keys(this.columns);
    saveCsv(
      'compare_pairs',
      ['example_id', 'example_name', 'target_id', 'target_name', 'listed', ...names],
      this.#rows.map((k) => [
        this.#exampleId(k),
        this.#exampleName(k),
        this.#targetId(k),
        this.#targetName(k),
        LISTED[this.listed[k]],
        ...names.map((name) => this.columns[name][k]),
      ]),
    );
  }

  // Shows what the address asks for; by default all pairs, largest first, as they come.
  update(parameters) {
    this.#parameters = parameters;
    const chosen = LISTED.indexOf(parameters.get('pairs'));
    const sort = parameters.get('pair_sort') ?? '';
    const key = sort.replace(/^-/, '');
    const sign = sort.startsWith('-') ? -1 : 1;
    const texts = { example: (k) => this.#exampleId(k), target: (k) => this.#targetId(k) };
    this.#rows = [...this.listed.keys()].filter((k) => chosen < 0 || this.listed[k] === chosen);
    const order = new Intl.Collator('en', { numeric: true }).compare;
    const column = key === 'listed' ? this.listed : this.columns[key];
    if (key in texts) this.#rows.sort((a, b) => sign * order(texts[key](a), texts[key](b)) || a - b);
    else if (column)
      this.#rows.sort((a, b) => {
        const [p, q] = [column[a], column[b]];
        return Number.isNaN(p) - Number.isNaN(q) || (Number.isNaN(p) ? 0 : sign * (p - q)) || a - b;
      });
    for (const each of this.buttons)
      each.setAttribute('aria-pressed', String(each.dataset.pairs === parameters.get('pairs')));
    this.counted.textContent = `${formatCount(this.#rows.length)} pairs`;
    this.table.setColumns(this.shown, key, sign < 0, 'value_1');
    this.table.setRows(this.#rows);
  }

  leave() {
    this.table.leave();
  }
}
