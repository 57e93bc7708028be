"""What documents have of tokens: of runs that keep them, of others, and of damaged ones."""

import json
import shutil

import numpy as np
import pytest
from planted import HOSTILE, N

from influence_jax import store
from influence_jax.analysis.tokens import Tokens, TokenScores, average_by_membership
from influence_jax.estimators import Method
from influence_jax.explorer import Site, encoding, export, open_results
from influence_jax.explorer.tokens import MOST_TOKENS
from influence_jax.report.tokens import TokenResults

VOCABULARY = ('Who', ' is', '\n', '<0xE2>', HOSTILE)
LENGTHS = 2 + np.arange(N) % 5
LENGTHS[7] = MOST_TOKENS + 3
MEMBERS = [3, 10, 40, 41]


@pytest.fixture(scope='module')
def token_results(planted_run):
    """Losses of tokens of some of the members, and scores of two pairs."""
    run = store.open_run(planted_run)
    count = int(LENGTHS.sum())
    cut = np.arange(N) == 5
    answer_starts = np.arange(N) % 2
    tokens = Tokens(VOCABULARY, np.arange(count) % 5, LENGTHS, answer_starts, cut)
    losses = np.random.default_rng(0).gamma(2, 1, (len(MEMBERS), N, LENGTHS.max()))
    scores = TokenScores(
        Method('dot', HOSTILE, 'a product'),
        '',
        10,
        np.array([3, 7]),
        np.array([4, 4]),
        LENGTHS[[4, 4]],
        np.linspace(-1, 1, 2 * LENGTHS[4]).astype(np.float32),
    )
    averaged = average_by_membership(losses, run.masks[MEMBERS], tokens, members=MEMBERS)
    return TokenResults(run.manifest.identity, N, averaged, scores)


@pytest.fixture
def run_with_tokens(planted_run, token_results, tmp_path):
    directory = shutil.copytree(planted_run, tmp_path / 'run')
    token_results.save(directory)
    return directory


def read(directory, address, **options):
    return json.loads(Site([open_results(directory)], **options).get(address))


def test_a_target_has_its_tokens_with_losses_by_membership(run_with_tokens, token_results):
    (page,) = read(run_with_tokens, '0/targets/4.json')
    found, expected = page['tokens'], token_results.losses.of_target(4)
    assert found['texts'] == [encoding.token(text) for text in expected.texts]
    for name, values in (
        ('in', expected.loss_in),
        ('out', expected.loss_out),
        ('in_error', expected.error_in),
        ('out_error', expected.error_out),
    ):
        assert found[name][0] is None  # the first token is not predicted
        shown = np.array([np.nan if value is None else value for value in found[name]])
        np.testing.assert_allclose(shown, values, rtol=5e-3)
    assert (found['included'], found['left_out']) == (expected.included, expected.left_out)
    assert found['included'] + found['left_out'] == len(MEMBERS)
    assert [example for example, _ in found['scores']] == [3, 7]
    np.testing.assert_allclose(
        np.concatenate([values for _, values in found['scores']]),
        token_results.scores.scores,
        rtol=1e-3,
    )
    about = read(run_with_tokens, '0/run.json')['tokens']
    assert (about['members'], about['scores']['member']) == (len(MEMBERS), 10)
    assert (about['scores']['targets'], about['scores']['pairs']) == (1, 2)


def test_tokens_are_clean_short_and_not_endless(run_with_tokens):
    (page,) = read(run_with_tokens, '0/targets/7.json')
    found = page['tokens']
    assert len(found['texts']) == len(found['out']) == MOST_TOKENS and found['more'] == 3
    assert found['scores'] == []
    assert {'Who', ' is', '\n', '<0xE2>'} < set(found['texts'])
    (hostile,) = set(found['texts']) - set(VOCABULARY)
    assert len(hostile) <= 200 and '\x00' not in hostile and '\u202e' not in hostile
    assert len(read(run_with_tokens, '0/run.json')['tokens']['scores']['method']) <= 200
    assert read(run_with_tokens, '0/targets/5.json')[0]['tokens']['cut']


def test_a_run_that_keeps_none_has_no_trace_of_them(planted_run, stored):
    for directory in (planted_run, stored):
        assert read(directory, '0/run.json')['tokens'] is None
        assert read(directory, '0/targets/4.json')[0]['tokens'] is None


def test_an_export_has_them(run_with_tokens, tmp_path):
    site = Site([open_results(run_with_tokens)], shard=export.SHARD)
    assert export.write(site, tmp_path / 'out') == []
    shard = json.loads((tmp_path / 'out' / 'data' / '0' / 'targets' / '0.json').read_text())
    assert shard[4]['tokens'] == read(run_with_tokens, '0/targets/4.json')[0]['tokens']


@pytest.mark.parametrize('damage', ['bytes', 'run', 'targets'])
def test_what_is_damaged_or_of_another_run_is_named_and_the_rest_is_there(
    run_with_tokens, token_results, damage
):
    path = run_with_tokens / 'tokens.zarr'
    if damage == 'bytes':
        (file,) = (path / 'losses.loss_out').glob('c*')
        file.write_bytes(file.read_bytes()[::-1])
    elif damage == 'run':
        token_results._replace(run='0' * 64).save(run_with_tokens)
    else:
        tokens = token_results.losses.tokens
        cut = int(LENGTHS[:-1].sum())
        fewer = tokens._replace(
            tokens=tokens.tokens[:cut],
            **{name: getattr(tokens, name)[:-1] for name in ('lengths', 'answer_starts', 'cut')},
        )
        losses = token_results.losses._replace(
            tokens=fewer,
            included=token_results.losses.included[:-1],
            **{
                name: getattr(token_results.losses, name)[:cut]
                for name in ('loss_in', 'error_in', 'loss_out', 'error_out')
            },
        )
        token_results._replace(losses=losses, scores=None).save(run_with_tokens)
    assert read(run_with_tokens, '0/run.json')['tokens'] is None
    (page,) = read(run_with_tokens, '0/targets/4.json')
    assert 'tokens.zarr' in page['tokens']['error'] and '\n' not in page['tokens']['error']
    assert page['losses'] and page['histogram']
