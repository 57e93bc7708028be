// A table of any length: only the rows in view exist, at a fixed height each.
import { h } from './dom.js';

const OVERSCAN = 6;
const [GAP, PADDING] = [18, 16]; // as the style sheet has them
const narrow = matchMedia('(max-width: 720px)');

export class VirtualTable {
  #rows = [];
  #drawn = new Map();
  #current = 0;
  #frame = 0;

  // columns: [{key, title, help, width: [pixels, share of what is left], numeric, sortable, cell(row)}];
  // `address(row)` of what a row opens; `sort(key)` is asked for at a click on a head. Heights are of wide and narrow rows.
  constructor({ label, address, sort, heights = [52, 76], empty }) {
    Object.assign(this, { address, sort, heights, empty });
    this.head = h('.vhead', { role: 'row' });
    this.body = h('.vbody', { role: 'rowgroup' });
    this.message = h('.vempty', { role: 'status' });
    this.element = h(
      '.vtable',
      { role: 'table', 'aria-label': label, tabindex: '-1', onscroll: () => this.#later() },
      h('.vheadgroup', { role: 'rowgroup' }, this.head),
      this.body,
      this.message,
    );
    this.observer = new ResizeObserver(() => this.#draw(true));
    this.observer.observe(this.element);
  }

  get height() {
    return this.heights[narrow.matches ? 1 : 0];
  }

  setColumns(columns, sorted, descending, main) {
    this.columns = columns;
    this.main = main;
    const tracks = columns.map(({ width: [least, share] }) =>
      share ? `minmax(${least}px, ${share}fr)` : `${least}px`,
    );
    const least = columns.reduce((sum, { width }) => sum + width[0] + GAP, 2 * PADDING - GAP);
    this.element.style.setProperty('--columns', tracks.join(' '));
    this.element.style.setProperty('--least', `${least}px`);
    this.head.replaceChildren(...columns.map((column) => this.#headCell(column, sorted, descending)));
  }

  #headCell({ key, title, help, numeric, sortable }, sorted, descending) {
    const direction = key !== sorted ? null : descending ? 'descending' : 'ascending';
    const mark = h('span.arrow', { 'aria-hidden': 'true' }, direction === null ? '' : descending ? '↓' : '↑');
    const content =
      sortable === false
        ? title
        : h('button', { type: 'button', title: help || null, onclick: () => this.sort(key) }, title, mark);
    return h(
      `.cell${numeric ? '.numeric' : ''}`,
      { role: 'columnheader', 'data-key': key, 'aria-sort': direction ?? (sortable === false ? null : 'none') },
      content,
    );
  }

  setRows(rows, { keepPlace = false } = {}) {
    this.#rows = rows;
    this.element.setAttribute('aria-rowcount', rows.length + 1);
    this.message.replaceChildren(...(rows.length ? [] : [this.empty()].flat()));
    if (!keepPlace) {
      this.#current = 0;
      this.element.scrollTop = 0;
    }
    this.#draw(true);
  }

  get place() {
    return { top: this.element.scrollTop, current: this.#current };
  }

  // Goes back to a place, once the table is in the page.
  restore({ top, current }) {
    this.#draw(true);
    this.#current = Math.min(current, Math.max(this.#rows.length - 1, 0));
    this.element.scrollTop = top;
    this.#draw(true);
    this.#drawn.get(this.#current)?.focus({ preventScroll: true });
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw(false);
    });
  }

  #draw(anew) {
    const { height } = this;
    this.body.style.height = `${this.#rows.length * height}px`;
    const visible = this.element.clientHeight || 800;
    const first = Math.max(0, Math.floor(this.element.scrollTop / height) - OVERSCAN);
    const last = Math.min(this.#rows.length, Math.ceil((this.element.scrollTop + visible) / height) + OVERSCAN);
    const focused = anew && this.element.contains(document.activeElement) && document.activeElement.closest('.vrow');
    for (const [position, element] of this.#drawn) {
      if (!anew && position >= first && position < last) continue;
      element.remove();
      this.#drawn.delete(position);
    }
    for (let position = first; position < last; position++) {
      if (!this.#drawn.has(position)) this.#drawn.set(position, this.#row(position, height));
    }
    if (focused) this.#drawn.get(this.#current)?.focus({ preventScroll: true });
  }

  #row(position, height) {
    const row = this.#rows[position];
    const isCurrent = position === this.#current;
    const cells = this.columns.map(({ key, numeric, cell }) => {
      const classes = `.cell${numeric ? '.numeric' : ''}${key === this.main ? '.main' : ''}`;
      return h(classes, { role: 'cell', 'data-key': key }, cell(row));
    });
    const element = h(
      `.vrow${isCurrent ? '.current' : ''}`,
      {
        role: 'row',
        'aria-rowindex': position + 2,
        tabindex: isCurrent ? '0' : '-1',
        style: { height: `${height}px`, transform: `translateY(${position * height}px)` },
        onfocus: () => this.#setCurrent(position),
        onclick: (event) => {
          if (!event.target.closest('a') && !String(getSelection())) location.hash = this.address(row);
        },
      },
      cells,
    );
    this.body.append(element);
    return element;
  }

  #setCurrent(position) {
    const previous = this.#drawn.get(this.#current);
    previous?.classList.remove('current');
    previous?.setAttribute('tabindex', '-1');
    this.#current = position;
    this.#drawn.get(position)?.classList.add('current');
    this.#drawn.get(position)?.setAttribute('tabindex', '0');
  }

  // Moves the current row and keeps it in view.
  move(step) {
    if (!this.#rows.length) return;
    const isFocused = document.activeElement?.closest?.('.vrow');
    const position = Math.min(Math.max(this.#current + (isFocused ? step : 0), 0), this.#rows.length - 1);
    const { height } = this;
    const room = this.element.clientHeight - this.head.offsetHeight;
    const top = position * height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + height > this.element.scrollTop + room) this.element.scrollTop = top + height - room;
    this.#draw(false);
    this.#setCurrent(position);
    this.#drawn.get(position)?.focus({ preventScroll: true });
  }

  get keys() {
    const page = () => Math.max(1, Math.floor(this.element.clientHeight / this.height) - 2);
    return {
      j: () => this.move(1),
      ArrowDown: () => this.move(1),
      k: () => this.move(-1),
      ArrowUp: () => this.move(-1),
      PageDown: () => this.move(page()),
      PageUp: () => this.move(-page()),
      Home: () => this.move(-this.#rows.length),
      End: () => this.move(this.#rows.length),
      Enter: (event) => {
        if (event.target.closest('a, button') || !this.#rows.length) return false;
        location.hash = this.address(this.#rows[this.#current]);
        return true;
      },
    };
  }

  leave() {
    this.observer.disconnect();
  }
}
