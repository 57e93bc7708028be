"""The explorer's page in a real browser, over made-up documents and the real server."""

import contextlib
import csv
import io
import shutil
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import uvicorn

from influence_jax.explorer import server
from tests.explorer import written_site
from tests.explorer.written_site import DAMAGED, HOSTILE, TOKENS, UNREADABLE, WrittenSite

playwright = pytest.importorskip('playwright.sync_api')
pytest.importorskip('bokeh')
MINUS = '\N{MINUS SIGN}'
CHROMIUM = shutil.which('chromium')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='no chromium on the PATH'),
]

VIEWS = (
    'targets',
    'target/17',
    'example/17',
    'map',
    'pairs',
    'clusters',
    'matrix',
    'membership',
    'convergence',
    'leaderboard',
)
WATCH = """
window.violations = [];
addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield chromium
        chromium.close()


@contextlib.contextmanager
def serve(site: WrittenSite) -> Iterator[str]:
    config = uvicorn.Config(
        server.application(site), port=0, log_level='error', ws='none', lifespan='off'
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f'http://127.0.0.1:{port}/'
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope='module')
def site():
    return WrittenSite(300)


@pytest.fixture(scope='module')
def address(site):
    with serve(site) as base:
        yield base


@pytest.fixture
def open_page(browser, address):
    """Opens views; at the end, nothing was complained of and the policy was not violated."""
    contexts, complaints, pages = [], [], []

    def complain(message):
        if message.type in ('error', 'warning'):
            complaints.append(message.text)

    def opened(view: str = 'targets', *, base: str = address, **settings):
        context = browser.new_context(**{'viewport': {'width': 1200, 'height': 900}} | settings)
        contexts.append(context)
        page = context.new_page()
        pages.append(page)
        page.add_init_script(WATCH)
        page.on('console', complain)
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.goto(f'{base}#/0/{view}')
        page.wait_for_selector('.view')
        return page

    yield opened
    violations = [one for page in pages for one in page.evaluate('violations')]
    for context in contexts:
        context.close()
    assert complaints == []
    assert violations == []


def rows(page):
    return page.locator('.vtable .vrow')


def first_is(page, name: str) -> None:
    """Waits for it: the table is drawn after the address has changed."""
    first = page.locator('.vrow .record .name').first
    playwright.expect(first).to_contain_text(name[:40])


def names(page) -> list[str]:
    page.wait_for_timeout(200)
    return [text.split('\n')[0] for text in page.locator('.vrow .record .name').all_inner_texts()]


def drawn(page) -> None:
    page.wait_for_selector('.chart canvas')
    page.wait_for_timeout(500)


def width_beyond(page) -> int:
    return page.evaluate('document.documentElement.scrollWidth - innerWidth')


def test_the_first_page_answers_which_are_most_memorized_and_sorts_by_any_column(open_page, site):
    page = open_page()
    largest = int(np.argmax(site.own))
    assert 'memorized' in page.locator('h1').inner_text()
    first_is(page, site.names[largest])
    # 0.0003 is not "0.000": as many digits as its error has.
    assert f'{site.own[largest]:.6f} ± 0.000020' in rows(page).first.inner_text()
    page.get_by_role('columnheader', name='Margin').get_by_role('button').click()
    page.wait_for_url('**sort=-margin**')
    first_is(page, site.names[int(np.argmax(site.margin))])
    page.get_by_role('columnheader', name='Margin').get_by_role('button').click()
    page.wait_for_url('**sort=margin**')
    first_is(page, site.names[int(np.argmin(site.margin))])
    head = page.get_by_role('columnheader', name='Margin')
    assert head.get_attribute('aria-sort') == 'ascending'
    page.go_back()
    first_is(page, site.names[int(np.argmax(site.margin))])


def test_columns_are_chosen_and_kept_in_the_address(open_page, site):
    page = open_page('targets?sort=-margin')
    page.locator('summary', has_text='Columns').click()
    page.get_by_label('Mean loss').check()
    page.wait_for_url('**mean_loss**')
    page.get_by_label('Verdict', exact=True).uncheck()
    page.wait_for_url(lambda url: 'verdict' not in url)
    page.reload()
    rows(page).first.wait_for()
    heads = page.get_by_role('columnheader').all_inner_texts()
    assert [text.rstrip('↓') for text in heads] == [
        'Image', 'Class', 'Self-influence', 'Margin', 'Mean loss', 'Strongest other',
    ]  # fmt: skip
    page.keyboard.press('Escape')


def test_targets_that_are_no_examples_have_others_alone(browser):
    site = WrittenSite(40, noun='record', are_examples=False)
    with serve(site) as base:
        page = browser.new_page()
        complaints = []
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.goto(base)
        rows(page).first.wait_for()
        strongest = np.argmax(site.own / site.margin)
        first_is(page, f'test {strongest}')
        assert f'thing {site.other[strongest]}' in rows(page).first.inner_text()
        page.goto(f'{base}#/0/target/7')
        page.get_by_text('Losses of the members', exact=True).wait_for()
        page.locator('.entries .entry').nth(1).click()
        page.get_by_text('Whom it influences').wait_for()
        assert page.locator('h1').inner_text() == 'thing 9'
        page.get_by_role('link', name='test 10').click()
        page.wait_for_url('**target/10')
        assert complaints == []
        assert page.locator('.failure').count() == 0
        page.close()


def test_a_search_is_kept_in_the_address_and_an_empty_one_says_so(open_page):
    page = open_page()
    page.get_by_role('searchbox').fill('thing 123')
    page.wait_for_url('**q=thing+123**')
    assert names(page) == ['thing 123']
    page.reload()
    assert names(page) == ['thing 123']
    page.get_by_role('searchbox').fill('id-00017 dog')
    page.wait_for_url('**q=id-00017**')
    assert names(page) == []  # 17 is of another class
    page.get_by_role('searchbox').fill('<b>bird id-00017')
    page.wait_for_url('**bird**')
    assert names(page) == ['thing 17']
    page.get_by_role('searchbox').fill('nothing like it')
    page.wait_for_url('**nothing**')
    assert 'No target matches “nothing like it”' in page.locator('.vempty').inner_text()
    page.get_by_text('Clear search and filters').click()
    page.wait_for_url('**#/0/targets*')
    assert len(names(page)) > 5


def test_filters_by_verdict_class_and_range_are_combined(open_page, site):
    page = open_page()
    page.get_by_role('button', name='unlearned').click()
    page.get_by_role('combobox', name='Class').select_option('1')
    page.get_by_text('Range', exact=True).click()
    page.get_by_label('Quantity').select_option('margin')
    page.get_by_label('at least').fill('4')
    page.get_by_role('button', name='Apply').click()
    page.wait_for_url('**range=margin**')
    kept = (site.verdicts == 2) & (site.labels == 1) & (site.margin >= 4)
    playwright.expect(page.locator('.count')).to_have_text(f'{kept.sum()} of 300 targets')
    page.get_by_role('button', name='Remove: Margin').click()
    page.wait_for_url(lambda url: 'range' not in url)
    kept = (site.verdicts == 2) & (site.labels == 1)
    playwright.expect(page.locator('.count')).to_have_text(f'{kept.sum()} of 300 targets')


def test_a_lasso_on_the_map_feeds_the_table(open_page, site):
    page = open_page('map?x=margin&y=mean_loss')
    drawn(page)
    box = page.locator('.chart').bounding_box()
    left, right = box['x'] + 0.55 * box['width'], box['x'] + box['width'] - 5
    page.mouse.move(left, box['y'] + 5)
    page.mouse.down()
    for x, y in ((right, 5), (right, box['height'] - 50), (left, box['height'] - 50), (left, 10)):
        page.mouse.move(x, box['y'] + y, steps=4)
    page.mouse.up()
    page.wait_for_url('**lasso=**')
    count = int(page.locator('.selection b').inner_text().split()[0])
    above = np.sort(site.margin)[-count]  # those right of a line
    assert 80 < count < 200
    page.get_by_text('Open in the table').click()
    page.wait_for_url('**#/0/targets?**lasso=**')
    assert page.locator('.filter-chip').inner_text().startswith(f'{count} selected')
    page.get_by_role('columnheader', name='Margin').get_by_role('button').click()
    page.get_by_role('columnheader', name='Margin').get_by_role('button').click()
    page.wait_for_url('**sort=margin**')
    first_is(page, site.names[int(np.flatnonzero(site.margin == above)[0])])
    page.get_by_role('button', name='Remove:').click()
    page.wait_for_url(lambda url: 'lasso' not in url)
    playwright.expect(page.locator('.count')).to_have_text('300 targets')


def test_a_distribution_is_hovered_zoomed_and_shown_whole_again(open_page):
    page = open_page('target/17')
    drawn(page)
    extent = """() => {
      const { start, end } = Bokeh.documents.at(0).roots()[0].x_range;
      return end - start;
    }"""
    whole = page.evaluate(extent)
    box = page.locator('.chart').first.bounding_box()
    middle, height = box['x'] + box['width'] / 2, box['y'] + box['height'] / 3
    page.mouse.move(middle, height)
    page.locator('.tip').wait_for()
    assert 'examples from' in page.locator('.tip').inner_text()
    page.mouse.down()
    page.mouse.move(middle + 150, height + 20, steps=5)
    page.mouse.up()
    page.wait_for_function(f'({extent})() < {whole / 3}')
    page.get_by_role('button', name='All', exact=True).first.click()
    page.wait_for_function(f'({extent})() === {whole}')
    page.get_by_role('button', name='Move').first.click()
    page.mouse.move(middle, height)
    page.mouse.down()
    page.mouse.move(middle + 100, height, steps=5)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert page.evaluate(extent) == pytest.approx(whole)
    start = 'Bokeh.documents.at(-1).roots()[0].x_range.start'
    moved = page.evaluate('Bokeh.documents.at(0).roots()[0].x_range.start')
    count = page.evaluate('Bokeh.documents.length')
    assert page.get_by_text('32 members trained on it').is_visible()
    page.keyboard.press('t')  # drawn anew in other colors, and the old ones are forgotten
    page.wait_for_timeout(1000)
    assert page.evaluate(start) != moved
    assert page.evaluate('Bokeh.documents.length') == count
    page.keyboard.press('Escape')
    rows(page).first.wait_for()
    page.wait_for_function('Bokeh.documents.length === 0')


def test_three_pages_by_clicks_and_back_again(open_page):
    page = open_page('targets?q=thing&sort=record')
    first = names(page)[0]
    rows(page).first.click()
    page.wait_for_url('**#/0/target/**')
    assert page.locator('h1').inner_text() == first
    page.locator('.entries .entry').first.click()
    page.wait_for_function(f'document.querySelector("h1").innerText !== "{first}"')
    influencer = page.locator('h1').inner_text()
    page.get_by_text('What it influences').click()
    page.wait_for_url('**#/0/example/**')
    page.get_by_text('Whom it influences').wait_for()
    assert page.locator('h1').inner_text() == influencer
    for _ in range(3):
        page.go_back()
    first_is(page, first)
    assert page.get_by_role('searchbox').input_value() == 'thing'


def test_a_target_is_reached_by_its_address_and_steps_in_the_order_of_the_table(open_page, site):
    order = np.argsort(-site.margin)
    page = open_page(f'target/{order[3]}?sort=-margin')
    assert page.locator('h1').inner_text() == site.names[order[3]]
    assert '4 of 300' in page.locator('.steps').inner_text()
    page.get_by_role('link', name='Next').click()
    page.wait_for_url(f'**target/{order[4]}?sort=-margin')
    page.keyboard.press('k')
    page.wait_for_url(f'**target/{order[3]}?sort=-margin')
    page.keyboard.press('Escape')
    page.wait_for_url('**#/0/targets?sort=-margin')


def test_everything_is_reached_by_keys(open_page, site):
    page = open_page()
    order = np.argsort(-site.own, kind='stable')
    assert len(names(page)) > 5
    page.keyboard.press('j')  # the first
    page.keyboard.press('j')
    page.keyboard.press('ArrowDown')
    page.keyboard.press('k')
    focused = page.evaluate('document.activeElement.getAttribute("aria-rowindex")')
    assert focused == '3'
    page.keyboard.press('Enter')
    page.locator('.steps').wait_for()
    assert page.locator('h1').inner_text() == site.names[order[1]]
    page.keyboard.press('Escape')
    rows(page).first.wait_for()
    assert page.evaluate('document.activeElement.getAttribute("aria-rowindex")') == '3'
    page.keyboard.press('/')
    page.keyboard.type('thing 42')
    page.wait_for_url('**q=thing+42*')
    assert set(names(page)) == {'thing 42', 'thing 142', 'thing 242'}
    page.keyboard.press('Escape')
    page.keyboard.press('?')
    assert page.get_by_role('dialog').is_visible()
    page.keyboard.press('Escape')
    assert not page.get_by_role('dialog').is_visible()


@pytest.mark.parametrize('view', VIEWS)
def test_views_fit_a_narrow_window_in_the_dark(open_page, view):
    page = open_page(view, viewport={'width': 400, 'height': 800}, color_scheme='dark')
    page.wait_for_load_state('networkidle')
    if view not in ('targets', 'example/17', 'pairs', 'clusters', 'leaderboard'):
        drawn(page)
    assert width_beyond(page) <= 0
    assert page.locator('.failure').count() == 0
    background = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert max(map(int, background[4:-1].split(','))) < 60


def test_light_and_dark_can_be_chosen(open_page):
    page = open_page(color_scheme='dark')
    switch = page.locator('#theme')
    background = 'getComputedStyle(document.body).backgroundColor'
    dark = page.evaluate(background)
    switch.click()
    light = page.evaluate(background)
    assert dark != light
    page.reload()
    page.wait_for_selector('.view')
    assert page.evaluate(background) == light
    page.keyboard.press('t')
    assert page.evaluate(background) == dark


def test_the_comparison_shows_what_moved(open_page, site):
    page = open_page()
    page.goto(page.url.split('#')[0] + '#/compare')
    moved = 'Self-influence of 150 of 300 targets moved'
    playwright.expect(page.locator('main')).to_contain_text(moved)
    page.get_by_label('Show').select_option('moved')
    page.wait_for_url('**only=moved')
    playwright.expect(page.locator('.count').first).to_have_text('150 targets')
    first_is(page, site.names[int(np.argmax(site.own))])
    drawn(page)


def test_a_cell_of_verdicts_filters_the_comparison(open_page, site):
    page = open_page()
    page.goto(page.url.split('#')[0] + '#/compare')
    page.wait_for_selector('.verdicts')
    counts = page.locator('.verdicts td button').all_inner_texts()
    assert sum(map(int, counts)) == 300  # the made-up runs have the same verdicts
    page.locator('[data-cell="1-1"]').click()
    page.wait_for_url('**verdicts=1-1')
    count = page.locator('.count').first
    playwright.expect(count).to_have_text(f'{(site.verdicts == 1).sum()} targets')
    text = page.locator('main').inner_text()
    assert 'first (64 members)' in text and 'second (8 masks, 8 members each)' in text
    assert 'of self-influence 0.0000200 and 0.0000100 nats (ratio 2.00).' in text


def test_new_and_lost_influences_are_listed_and_saved(open_page, site, tmp_path):
    page = open_page()
    page.goto(page.url.split('#')[0] + '#/compare')
    table = page.get_by_role('table', name='Significant pairs of both runs')
    count = page.locator('.pair-count')
    playwright.expect(count).to_have_text('6 pairs')
    page.get_by_role('button', name='2 in second').click()
    page.wait_for_url('**pairs=second')
    playwright.expect(count).to_have_text('2 pairs')
    assert 'not stored' in table.inner_text()
    table.get_by_role('button', name='first').click()
    page.wait_for_url('**pair_sort=-value_0*')
    playwright.expect(table.locator('.vrow').first).to_contain_text('0.000300 ± 0.000030')
    with page.expect_download() as download:
        page.get_by_role('button', name='CSV of pairs').click()
    download.value.save_as(tmp_path / 'pairs.csv')
    saved = list(csv.DictReader(io.StringIO((tmp_path / 'pairs.csv').read_text())))
    assert [row['example_id'] for row in saved] == ['id-00003', 'id-00004']
    assert {row['listed'] for row in saved} == {'second'} and saved[1]['value_0'] == ''
    table.locator('.vrow').first.locator('[data-key=value_1] a').click()
    page.wait_for_url('**#/1/target/9*')


def test_a_target_opened_from_the_comparison_leads_back_and_to_the_other_run(open_page, site):
    page = open_page()
    page.goto(page.url.split('#')[0] + '#/compare?q=thing+120&sort=-difference')
    page.get_by_role('table', name='Targets of both runs').locator('.vrow').first.click()
    page.wait_for_url('**#/0/target/120?*')
    page.get_by_role('link', name='The same in second').click()
    page.wait_for_url('**#/1/target/120?*')
    page.get_by_role('link', name='The same in first').wait_for()
    page.get_by_role('link', name='← Compare').click()
    page.wait_for_url('**#/compare?q=thing+120&sort=-difference')
    playwright.expect(page.locator('.count').first).to_have_text('1 targets')
    text = page.locator('main').inner_text()
    assert f'recipe.epochs: 12 in the first, {HOSTILE[0]} in the second' in text
    page.goto(page.url.split('#')[0] + '#/0/target/17')
    page.get_by_role('link', name='← Table').wait_for()


def test_the_saved_comparison_has_names_and_verdicts(open_page, site, tmp_path):
    page = open_page()
    page.goto(page.url.split('#')[0] + '#/compare?q=thing+12')
    page.wait_for_selector('.pair-count')
    with page.expect_download() as download:
        page.get_by_role('button', name='CSV', exact=True).click()
    download.value.save_as(tmp_path / 'compare.csv')
    saved = list(csv.DictReader(io.StringIO((tmp_path / 'compare.csv').read_text())))
    assert saved
    for row in saved:
        place = int(row['target_0'])
        assert row['name'] == site.names[place] and row['name'].startswith('thing 12')
        verdict = written_site.VERDICTS[site.verdicts[place]]
        assert row['verdict_0'] == row['verdict_1'] == verdict


def test_pairs_are_sorted_and_searched_and_saved_with_ids(open_page, tmp_path):
    page = open_page('pairs')
    assert '0.000400 ± 0.000020' in rows(page).first.inner_text()
    assert '0.000300 to 0.000500' in rows(page).first.inner_text()
    page.get_by_role('columnheader', name='Influence', exact=True).get_by_role('button').click()
    page.wait_for_url('**sort=-value')
    page.get_by_role('searchbox').fill('id-00017')
    page.wait_for_url('**q=id-00017*')
    playwright.expect(page.locator('.count')).to_have_text('2 pairs')
    with page.expect_download() as download:
        page.get_by_role('button', name='CSV').click()
    download.value.save_as(tmp_path / 'pairs.csv')
    saved = list(csv.DictReader(io.StringIO((tmp_path / 'pairs.csv').read_text())))
    assert [row['example_id'] for row in saved] == ['id-00002', 'id-00003']
    assert float(saved[0]['low']) == pytest.approx(1e-4)


def test_any_example_is_looked_up_on_the_page_of_a_target(open_page):
    page = open_page('target/17')
    field, answer = page.get_by_label('Influence of the example'), page.locator('.lookup p')
    for text, expected in (
        ('id-00018', 'stands out'),  # the strongest, a significant pair
        ('id-00002', '0.0001000 to 0.000500'),  # known as a pair alone
        ('id-00100', 'not among the stored strongest'),
        ('nobody', 'no example'),
        ('id-00017', 'itself'),
    ):
        field.fill(text)
        field.press('Enter')
        answer.get_by_text(expected).first.wait_for()


def test_what_does_not_stand_out_is_gray_and_intervals_are_those_of_the_selection(open_page):
    page = open_page('target/17')
    page.locator('.entries').first.wait_for()
    first, fifth = (page.locator('.entries').first.locator('li').nth(k) for k in (0, 4))
    assert ' to 0.000400, cross-fitted' in first.inner_text()
    assert 'noise' in fifth.get_attribute('class') and ' to ' not in fifth.inner_text()
    assert 'not stand out' in fifth.locator('a').get_attribute('title')
    page.goto(page.url.split('#')[0] + '#/0/targets')
    rows(page).first.wait_for()
    assert 0 < page.locator('.vrow .other.noise').count() < rows(page).count()


def test_sizes_below_and_above_todays_are_foretold(open_page):
    page = open_page('convergence')
    page.get_by_role('rowheader', name='500').wait_for()
    smaller = page.locator('tbody tr').first.inner_text()
    assert smaller.startswith('20') and '20 (50 %)' in smaller
    assert 'nearly all, and more' in page.locator('tbody tr').last.inner_text()


def test_terms_addresses_and_a_single_hit(open_page):
    page = open_page('targets?q=id-00042')
    page.get_by_role('searchbox').press('Enter')
    page.wait_for_url('**#/0/target/42')
    page.goto(page.url.split('#')[0] + '#/matrix')
    page.get_by_text('Influence matrix').wait_for()
    page.keyboard.press('?')
    text = page.get_by_role('dialog').inner_text()
    assert 'Cross-fitted' in text and 'Verdict: unique' in text and 'Mean loss' in text


def test_a_page_that_is_opened_as_a_file_says_what_it_needs(browser):
    page = browser.new_page()
    page.goto(server.page_files()['index.html'].as_uri())
    page.get_by_text('http.server').wait_for()
    page.close()


def test_texts_of_data_are_shown_as_text(browser):
    site = WrittenSite(40, noun='record')
    with serve(site) as base:
        context = browser.new_context(viewport={'width': 1200, 'height': 900})
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(f'{base}#/0/targets?sort=record')
        page.wait_for_selector('.vrow')
        shown = page.locator('.vrow .record .name').all_text_contents()
        assert any(text.startswith(HOSTILE[0]) for text in shown)
        for view in ('target/0', 'target/1', 'target/2', 'target/4', 'example/2', 'leaderboard'):
            page.goto(f'{base}#/0/{view}')
            page.wait_for_load_state('networkidle')
            page.wait_for_timeout(200)
            assert page.locator('main :is(img, script, i:not(:empty))').count() == 0
            assert width_beyond(page) <= 0
        page.goto(f'{base}#/0/target/2')
        page.wait_for_selector('.text-record')
        marked = page.locator('.text-record mark').all_inner_texts()
        assert '2' in marked
        assert 'painted' not in marked
        assert page.title() != 'run'
        assert page.evaluate('violations') == []
        context.close()


@contextlib.contextmanager
def opened_texts(browser, **settings):
    """A page over texts, and the address of its views; nothing was complained of at the end."""
    complaints = []
    with serve(WrittenSite(40, noun='record', **settings)) as base:
        context = browser.new_context(viewport={'width': 1200, 'height': 900})
        page = context.new_page()
        page.add_init_script(WATCH)
        page.on('pageerror', lambda error: complaints.append(str(error)))
        yield page, f'{base}#/0'
        assert complaints == [] and page.evaluate('violations') == []
        context.close()


def tokens_of(page):
    """The section of losses by token."""
    return page.locator('section', has=page.get_by_role('heading', name='Token by token'))


def test_losses_of_tokens_are_shown_by_membership(browser, tmp_path):
    with opened_texts(browser) as (page, base):
        page.goto(f'{base}/target/17')
        section = tokens_of(page)
        shown = section.locator('.token')
        shown.first.wait_for()
        how = section.locator('.how').inner_text()
        assert '5 that were trained on it and 7 that were not' in how
        # The mean over its predicted tokens: (0.5 + ... + 2.5) / 5.
        assert 'difference 1.25, left out 1.50, trained on it 0.250' in section.inner_text()
        pieces = section.locator('.piece').all_inner_texts()
        assert pieces == ['Who', '·painted', '·it', '↵', 'she', TOKENS[-1]]
        assert section.get_by_role('list', name='Prompt').locator('li').count() == 2
        assert section.get_by_role('list', name='Completion').locator('li').count() == 4

        def values():
            return section.locator('.value').all_inner_texts()

        missing = '\N{EN DASH}'
        assert values() == [missing, '0.3', '0.8', '1.3', '1.8', '2.3']
        title = shown.nth(2).get_attribute('title')
        assert 'difference 0.750 ± 0.014' in title and 'left out 1.000 ± 0.010' in title
        assert title.endswith('trained on it 0.250 ± 0.010 nats')
        assert 'not predicted' in shown.first.get_attribute('title')
        deepest = shown.last.evaluate('one => getComputedStyle(one).backgroundColor')
        assert deepest != shown.nth(1).evaluate('one => getComputedStyle(one).backgroundColor')
        section.get_by_role('button', name='Left out').click()
        assert values() == [missing, '0.5', '1.0', '1.5', '2.0', '2.5']
        assert section.get_by_role('button', pressed=True).inner_text() == 'Left out'
        with page.expect_download() as download:
            section.get_by_role('button', name='CSV').click()
        download.value.save_as(tmp_path / 'tokens.csv')
        saved = list(csv.DictReader(io.StringIO((tmp_path / 'tokens.csv').read_text())))
        assert [float(row['loss_left_out'] or 0) for row in saved] == [0, 0.5, 1, 1.5, 2, 2.5]
        assert saved[1]['token'] == ' painted'


def test_scores_of_tokens_stand_below_the_two_records(browser):
    with opened_texts(browser) as (page, base):
        page.goto(f'{base}/target/7')
        scores = page.locator('.token-scores')
        scores.wait_for()
        # The strongest of which there are scores, and a change that is of it alone.
        assert page.get_by_label('Beside it').input_value() == '9'
        assert page.locator('.text-record h4', has_text='Change').count() == 1
        text = scores.inner_text()
        assert 'member 3, not by the ensemble' in text and '8 targets' in text
        assert f'Together {MINUS}0.000150' in text
        assert 'in units of 1\N{MULTIPLICATION SIGN}10⁻⁵' in text
        assert scores.locator('.value').all_inner_texts()[1:] == [
            f'{MINUS}{k}.0' for k in range(1, 6)
        ]
        page.get_by_label('Beside it').select_option('8')  # a pair of which there are none
        page.get_by_text('none of this pair').wait_for()
        assert page.locator('.token-scores .token').count() == 0
        page.goto(f'{base}/target/17')  # a target of which there are none
        tokens_of(page).locator('.token').first.wait_for()
        assert page.get_by_text('none of this pair').count() == 0


def test_hostile_tokens_are_shown_as_text(browser):
    with opened_texts(browser) as (page, base):
        for target in range(len(HOSTILE)):
            page.goto(f'{base}/target/{target}')
            tokens_of(page).locator('.token').first.wait_for()
            assert page.locator('main :is(img, script, i:not(:empty))').count() == 0
            assert width_beyond(page) <= 0
        pieces = tokens_of(page).locator('.piece').all_text_contents()
        assert pieces[2].startswith(HOSTILE[0].replace(' ', '·'))
        assert '\u202e' not in ''.join(pieces) and '\x00' not in ''.join(pieces)
        assert pieces[-2:] == ['↵', '<0xE2>']
        assert page.title() != 'run'


def test_tokens_that_are_cut_damaged_or_of_no_example(browser):
    with opened_texts(browser) as (page, base):
        page.goto(f'{base}/target/{len(HOSTILE)}')
        tokens_of(page).get_by_text('7 more tokens').wait_for()
        assert 'Their mean' not in tokens_of(page).inner_text()
        page.goto(f'{base}/target/{len(HOSTILE) + 1}')
        tokens_of(page).get_by_text('models read its first 6 tokens').wait_for()
        page.goto(f'{base}/target/{UNREADABLE}')
        tokens_of(page).get_by_text('the tokens of this run are damaged').wait_for()
        page.get_by_role('heading', name='Losses of the members').wait_for()
    with opened_texts(browser, are_examples=False) as (page, base):
        page.goto(f'{base}/target/17')
        section = tokens_of(page)
        section.locator('.token').first.wait_for()
        assert section.get_by_role('group').get_by_role('button').all_inner_texts() == ['Left out']
        assert 'none of which was trained on it' in section.inner_text()


def test_a_run_without_token_losses_has_no_section_for_them(open_page):
    page = open_page('target/17')
    page.get_by_role('heading', name='Membership').wait_for()
    assert tokens_of(page).count() == 0


def test_rows_of_a_table_are_shown_by_feature_with_differences_marked(browser):
    with serve(WrittenSite(40, noun='example')) as base:
        page = browser.new_page()
        page.goto(f'{base}#/0/target/7')
        page.get_by_role('rowheader', name='width').wait_for()
        width, height = page.locator('tbody tr').all()
        assert width.locator('td').all_inner_texts()[0] == '7'
        assert width.locator('mark').all_inner_texts() == ['8', '9', '10', '11']
        assert height.locator('td').all_inner_texts() == ['<i>7</i>'] * 5
        assert height.locator('mark').count() == 0
        page.close()


def test_a_damaged_document_is_named_where_it_would_be_and_the_rest_works(open_page):
    page = open_page(f'target/{DAMAGED}')
    failure = page.locator('.failure')
    failure.wait_for()
    assert 'the losses of this target are damaged' in failure.inner_text()
    assert page.locator('h1').inner_text() == f'thing {DAMAGED}'
    page.get_by_text('← Table').click()
    assert len(names(page)) > 5
    page.goto(page.url.split('#')[0] + '#/0/target/999')
    page.wait_for_selector('.failure')
    assert 'no target 999' in page.locator('.failure').inner_text()
    page.goto(page.url.split('#')[0] + '#/0/nothing')
    page.get_by_text('There is no view').wait_for()


def test_rows_and_figures_are_saved(open_page, site, tmp_path):
    page = open_page('targets?q=thing+12')
    assert names(page)
    with page.expect_download() as download:
        page.get_by_role('button', name='CSV').click()
    download.value.save_as(tmp_path / 'targets.csv')
    saved = list(csv.DictReader(io.StringIO((tmp_path / 'targets.csv').read_text())))
    assert len(saved) == int(page.locator('.count').inner_text().split()[0]) > 10
    assert {name for name in site.names if 'thing 12' in name} <= {row['name'] for row in saved}
    row = saved[0]
    assert float(row['self_influence']) == pytest.approx(site.own[int(row['target'])], rel=1e-6)
    page.goto(page.url.split('#')[0] + '#/0/target/17')
    drawn(page)
    for kind, start in (('PNG', b'\x89PNG'), ('SVG', b'<svg')):
        with page.expect_download() as download:
            page.get_by_role('button', name=kind, exact=True).first.click()
        download.value.save_as(tmp_path / kind)
        assert start in (tmp_path / kind).read_bytes()[:200]


def test_no_cell_of_a_saved_file_is_a_formula(open_page, tmp_path):
    texts = ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '  =1', '\uff1d1+1', 'a=1', '"=1",\n2']
    page = open_page()
    with page.expect_download() as download:
        page.evaluate(
            """async (texts) => {
              const { saveCsv } = await import('./dom.js');
              saveCsv('cells', ['text', 'number'], texts.map((text) => [text, -1.5]));
            }""",
            texts,
        )
    download.value.save_as(tmp_path / 'cells.csv')
    content = (tmp_path / 'cells.csv').read_bytes().decode()
    header, *lines = csv.reader(io.StringIO(content, newline=''))
    assert header == ['text', 'number']
    assert [text for text, _ in lines] == [f"'{text}" for text in texts[:8]] + texts[8:]
    assert {number for _, number in lines} == {'-1.5'}  # a number is none either


def test_numbers_keep_the_digits_that_they_need(open_page):
    page = open_page()
    texts = page.evaluate("""async () => {
      const { formatNumber, formatEstimate, Scale } = await import('./numbers.js');
      const scale = new Scale('asinh', 0.01);
      return [
        [0.0003, 1234567.891, -2.5, 0, NaN, Infinity, 1.5e-9].map((value) => formatNumber(value)),
        formatNumber(0.0003, 3),
        formatEstimate(0.03124, 0.0041),
        formatEstimate(-1e-9, 3e-10).join(' ± '),
        scale.ticks(scale.forward(-0.2), scale.forward(20), 8).sort((a, b) => a - b),
      ];
    }""")
    power = '\N{MULTIPLICATION SIGN}10⁻⁹'
    missing = '\N{EN DASH}'
    assert texts[0] == ['0.000300', '1,234,568', f'{MINUS}2.50', '0', missing, '∞', f'1.5{power}']
    assert texts[1] == '0.00030'
    assert texts[2] == ['0.0312', '0.0041']
    assert texts[3] == f'({MINUS}1.00 ± 0.30){power}'
    assert {-0.1, 0, 0.1, 1, 10} <= set(texts[4])


def test_fifty_thousand_targets_are_shown_scrolled_and_selected_without_a_pause(browser):
    site = WrittenSite(50_000)
    site.get('0/targets.json')  # to measure the page, not this
    with serve(site) as base:
        page = browser.new_context(viewport={'width': 1200, 'height': 900}).new_page()
        start = time.perf_counter()
        page.goto(base)
        page.wait_for_selector('.vrow')
        first = time.perf_counter() - start
        spent = page.evaluate("""async () => {
          const table = document.querySelector('.vtable');
          const frame = () => new Promise(requestAnimationFrame);
          const pauses = [];
          for (let k = 0; k <= 60; k++) {
            const before = performance.now();
            table.scrollTop = (table.scrollHeight * k) / 60;
            await frame(); await frame();
            pauses.push(performance.now() - before);
          }
          return pauses.sort((a, b) => a - b)[30];
        }""")
        assert rows(page).count() < 60
        assert rows(page).last.get_attribute('aria-rowindex') == '50001'
        start = time.perf_counter()
        page.get_by_role('searchbox').fill('thing 4999')
        page.wait_for_url('**q=thing+4999')
        search = time.perf_counter() - start
        playwright.expect(page.locator('.count')).to_have_text('15 of 50,000 targets')
        start = time.perf_counter()
        page.goto(f'{base}#/0/map')
        page.wait_for_selector('.chart canvas')
        mapped = time.perf_counter() - start
        print(f'{first=:.2f} s {spent=:.0f} ms {search=:.2f} s {mapped=:.2f} s')
        # Ten times what is needed where nothing else runs.
        assert first < 20
        assert spent < 500
        page.context.close()
