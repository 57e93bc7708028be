// Addresses, views and keys: `#/0/target/17?sort=...` shows a view of run 0 in the page.
import { Run, fetchDocument } from './data.js';
import { announce, button, failure, h } from './dom.js';
import { redrawCharts, releaseCharts } from './charts.js';
import { compareView } from './compare.js';
import { exampleView } from './example.js';
import { mapView } from './map.js';
import { convergenceView, leaderboardView, membershipView } from './quality.js';
import { clustersView, matrixView } from './structure.js';
import { pairsView } from './pairs.js';
import { targetView } from './target.js';
import { targetsView } from './targets.js';

// Views in the order of the navigation; `needs` names the part of the run that one shows.
const VIEWS = [
  { name: 'targets', title: 'Targets', show: targetsView },
  { name: 'map', title: 'Map', show: mapView },
  { name: 'pairs', title: 'Pairs', show: pairsView, needs: 'pairs' },
  { name: 'clusters', title: 'Near-duplicates', show: clustersView, needs: 'clusters' },
  { name: 'matrix', title: 'Matrix', show: matrixView, needs: 'matrix' },
  { name: 'membership', title: 'Membership', show: membershipView, needs: 'membership' },
  { name: 'convergence', title: 'Convergence', show: convergenceView, needs: 'convergence' },
  { name: 'leaderboard', title: 'Leaderboard', show: leaderboardView, needs: 'leaderboard' },
  { name: 'target', show: targetView },
  { name: 'example', show: exampleView },
];
const KEYS = [
  ['/', 'search'],
  ['j k or ↓ ↑', 'next and previous row, or target'],
  ['Enter', 'open the row'],
  ['Esc', 'back to the table'],
  ['t', 'light, dark, or as the system'],
  ['?', 'this list'],
];
// What stands in heads and titles, for those who cannot point at them; verdicts and quantities are of the run.
const TERMS = [
  ['Influence', 'How much lower the loss on a target is where an example was trained on; negative: higher.'],
  ['Member', 'One of the models of the ensemble, each trained on a random subset.'],
  ['± ', 'One standard error.'],
  [
    'Stands out',
    'A significant pair (Benjamini and Hochberg over all pairs), or an influence that one entry of a whole matrix of noise is expected to reach.',
  ],
  ['Cross-fitted', 'Estimated by members that had no part in choosing the pair, hence not too large for having been chosen.'],
  ['Reliability', 'Correlation of the estimates with those of another ensemble of as many members.'],
];

const main = document.getElementById('main');
const runs = new Map();
let index = null;
let shown = { key: null, view: null };
let turn = 0;

function parseAddress() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const parts = path.split('/');
  if (VIEWS.some(({ name }) => name === parts[0])) parts.unshift('0'); // a view without its run
  const [first = '', view = 'targets', key = ''] = parts;
  if (first === 'compare') return { run: null, view: 'compare', key: '', query };
  return { run: first === '' ? 0 : Number(first), view: view || 'targets', key, query };
}

function openRun(number) {
  if (!runs.has(number)) {
    const promise = Run.open(number);
    promise.catch(() => runs.delete(number));
    runs.set(number, promise);
  }
  return runs.get(number);
}

// Shows what the address asks for; a view of the same run that can, takes a new query as it is.
async function route() {
  const mine = ++turn;
  const address = parseAddress();
  const key = `${address.run}/${address.view}/${address.key}`;
  if (shown.key === key && shown.view?.update) {
    shown.view.update(address.query);
    return;
  }
  const isFirst = shown.key === null;
  shown.view?.leave?.();
  shown = { key: null, view: null };
  const waiting = setTimeout(() => main.replaceChildren(h('p.state', { role: 'status' }, 'Loading …')), 150);
  let view = null;
  const body = h('.view');
  try {
    index ??= await fetchDocument('index.json');
    const known = address.view === 'compare' ? { show: compareView } : VIEWS.find(({ name }) => name === address.view);
    if (!known) throw new Error(`There is no view “${address.view}”.`);
    if (address.run !== null && !index.runs[address.run]) throw new Error(`There is no run ${address.run} here.`);
    const run = await openRun(address.run ?? 0);
    if (mine !== turn) return;
    frame(run, address);
    if (known.needs && !run.has(known.needs)) throw new Error(`This run has no results on ${known.needs}.`);
    view = await known.show({
      run,
      body,
      index,
      openRun,
      key: address.key,
      query: address.query,
      replace: (query) => {
        if (mine === turn) replaceQuery(run, address, query);
      }, // not a view that has been left
    });
  } catch (error) {
    body.replaceChildren(failure(error), h('p', {}, h('a', { href: '#/' }, 'To the table of targets')));
  } finally {
    clearTimeout(waiting);
  }
  if (mine !== turn) {
    view?.leave?.();
    return;
  }
  main.replaceChildren(body);
  releaseCharts();
  shown = { key, view };
  scrollTo(0, 0);
  if (!isFirst) main.focus({ preventScroll: true });
  view?.shown?.();
  announce(document.title);
}

// Writes the view's state to the address without a new entry in the history.
function replaceQuery(run, address, query) {
  const isCompare = address.view === 'compare';
  history.replaceState(
    history.state,
    '',
    isCompare ? `#/compare?${query}` : run.address(address.view, address.key, query),
  );
  shown.view?.update?.(String(query));
}

function explain({ quantities, verdicts }) {
  const terms = [
    ...TERMS,
    ...quantities.map(({ title, help: text }) => [title, text]),
    ...verdicts.map(({ title, help: text }) => [`Verdict: ${title}`, text]),
  ];
  glossary.replaceChildren(...terms.flatMap(([term, text]) => [h('dt', {}, term), h('dd', {}, text)]));
}

function frame(run, address) {
  explain(run.about);
  const { title } = run.about;
  document.title =
    address.view === 'targets' ? title : `${title} · ${address.view}${address.key ? ` ${address.key}` : ''}`;
  const brand = document.getElementById('brand');
  const isNamed = new Set(index.runs.map((each) => each.title)).size === index.runs.length;
  const choices = index.runs.map((each, number) =>
    h(
      'option',
      { value: number, selected: number === run.index },
      isNamed ? each.title : `${each.title} (${each.name})`,
    ),
  );
  const choose = (event) => {
    location.hash = `#/${event.target.value}/targets`;
  };
  brand.replaceChildren(
    index.runs.length > 1
      ? h('select.run', { 'aria-label': 'Run', onchange: choose }, choices)
      : h('a.title', { href: '#/0/targets', title }, title),
  );
  const links = VIEWS.filter((view) => view.title && (!view.needs || run.has(view.needs))).map((view) => [
    view.title,
    run.address(view.name),
    view.name,
  ]);
  if (index.compared) links.push(['Compare', '#/compare', 'compare']);
  const current = ['target', 'example'].includes(address.view) ? 'targets' : address.view;
  document
    .getElementById('views')
    .replaceChildren(
      ...links.map(([text, href, name]) => h('a', { href, 'aria-current': name === current ? 'page' : null }, text)),
    );
  document.querySelector('#views [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
}

const THEMES = { auto: 'as the system', light: 'light', dark: 'dark' };

function theme() {
  try {
    return localStorage.getItem('theme') in THEMES ? localStorage.getItem('theme') : 'auto';
  } catch {
    return document.documentElement.dataset.theme ?? 'auto'; // storage is forbidden
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem('theme', name);
  } catch {
    /* kept for this page alone */
  }
  const control = document.getElementById('theme');
  control.textContent = { auto: '◐', light: '○', dark: '●' }[name];
  control.setAttribute('aria-label', `Colors: ${THEMES[name]}`);
  control.title = `Colors: ${THEMES[name]}`;
  redrawCharts();
}

function nextTheme() {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(theme()) + 1) % names.length]);
}

const glossary = h('dl.glossary');
const help = h(
  'dialog.help',
  { 'aria-labelledby': 'keys-title' },
  h('h2', { id: 'keys-title' }, 'Keys'),
  h(
    'dl',
    {},
    KEYS.map(([key, what]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, what)]),
  ),
  h('h2', {}, 'Terms'),
  glossary,
  h('form', { method: 'dialog' }, h('button.button', {}, 'Close')),
);

function focusSearch() {
  const search = document.querySelector('input[type=search]');
  if (search) search.focus();
  else location.hash = '#/';
}

function onKey(event) {
  const typing = event.target.closest?.('input, select, textarea, dialog');
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape' && event.target.closest?.('input')) {
    event.target.blur();
    return;
  }
  if (typing) return;
  const keys = shown.view?.keys ?? {};
  const common = {
    '?': () => help.showModal(),
    '/': focusSearch,
    t: nextTheme,
  };
  const action = keys[event.key] ?? common[event.key];
  if (!action || action(event) === false) return;
  event.preventDefault();
}

document.body.append(help);
document.getElementById('tools').append(
  button('?', () => help.showModal(), { 'aria-label': 'Keys and terms', title: 'Keys and terms (?)' }),
  button('', nextTheme, { id: 'theme' }),
);
setTheme(theme());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawCharts);
addEventListener('keydown', onKey);
addEventListener('hashchange', route);
route();
