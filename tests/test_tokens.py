"""Token losses and scores of a trained run: they add up to what the run has recorded."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import influence_jax as ij
from influence_jax import attribution, report, tokens
from influence_jax.analysis.tokens import Pairs
from influence_jax.data import Dataset
from influence_jax.data.text.tokenizer import train_byte_bpe
from influence_jax.estimators import difference_in_means
from influence_jax.models.gpt_neo import GPTNeoConfig, init
from influence_jax.models.lora import LoRA
from influence_jax.progress import Quiet
from influence_jax.report.tokens import TokenResults
from influence_jax.tasks import CausalLM
from influence_jax.training import checkpoint, sequential

PROMPTS = ('which door', '', 'who', 'which \u20ac door is it?')
COMPLETIONS = (
    'the red one',
    'a long text on doors that is cut',
    '<b>me</b> & co',
    'x',
    'the green one\nof two',
)
COUNT, MEMBERS = 15, 16
CONFIG = GPTNeoConfig(280, hidden=8, layers=1, heads=2, max_positions=32)


def dataset():
    text = np.dtypes.StringDType()
    prompts = [PROMPTS[n % len(PROMPTS)] for n in range(COUNT)]
    completions = [f'{COMPLETIONS[n % len(COMPLETIONS)]} {n}' for n in range(COUNT)]
    arrays = {'prompt': np.array(prompts, text), 'completion': np.array(completions, text)}
    return Dataset(arrays, name='doors')


TOKENIZER = train_byte_bpe(dataset().texts, 280)
TASK = CausalLM(CONFIG, TOKENIZER, max_length=24)
BASE = init(CONFIG, key=jax.random.key(3))


def trained(directory, task=TASK, **changes):
    settings = {
        'members': MEMBERS,
        'recipe': ij.Recipe(epochs=4, batch_size=4, learning_rate=1e-2),
        'executor': sequential(1),
        'keep_params': True,
        'output_dir': directory,
    }
    return ij.train_ensemble(task, dataset(), **settings | changes)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    made = trained(tmp_path_factory.mktemp('texts') / 'run')
    report.write(made, estimator=difference_in_means)
    return made


@pytest.fixture
def copied(run, tmp_path):
    """The same, to be written to and damaged."""
    return ij.open_run(shutil.copytree(run.directory, tmp_path / 'run'))


def means_of_records(run, members):
    """What the run has recorded of some members, averaged by membership."""
    losses, masks = run.measurement('loss')[members], run.masks[members]
    with np.errstate(invalid='ignore'):
        return (
            np.where(masks, losses, 0).sum(axis=0) / masks.sum(axis=0),
            np.where(masks, 0, losses).sum(axis=0) / (~masks).sum(axis=0),
        )


def check_adds_up(run, found):
    """The mean over a record's tokens is the record's loss, in and out."""
    inside, outside = means_of_records(run, found.members)
    assert np.isfinite(inside).all() and np.isfinite(outside).all()
    for target in range(COUNT):
        of_target = found.of_target(target)
        assert of_target.loss_in[1:].mean() == pytest.approx(inside[target], rel=1e-5)
        assert of_target.loss_out[1:].mean() == pytest.approx(outside[target], rel=1e-5)


def test_tokens_of_a_record_have_its_loss_as_their_mean(run):
    found = tokens.losses(run, dataset())
    assert found.members.tolist() == list(range(MEMBERS))
    np.testing.assert_array_equal(found.included, run.masks.sum(axis=0))
    check_adds_up(run, found)
    assert found.tokens.cut.any() and not found.tokens.cut.all()


def test_tokens_are_those_of_the_runs_tokenizer(run):
    found, records = tokens.losses(run, dataset(), members=2), TASK.encode(dataset())
    for target, (text, completion) in enumerate(
        zip(dataset().texts, dataset().array('completion'), strict=True)
    ):
        of_target = found.of_target(target)
        pieces = list(of_target.texts)
        assert len(pieces) == records.lengths[target]
        if not of_target.cut:
            assert pieces.pop() == '<|endoftext|>'
            written = ''.join(pieces[of_target.answer_start :])
            assert written == str(completion) or '<0x' in written
        assert of_target.cut or str(text).endswith(''.join(pieces[-1:]))


def test_errors_are_over_members(run):
    found = tokens.losses(run, dataset())
    single = [tokens.losses(run, dataset(), members=1)]
    assert np.isnan(single[0].error_in).all() and np.isnan(single[0].error_out).all()
    assert single[0].members.tolist() == [0]
    both = np.isfinite(found.error_in) & np.isfinite(found.error_out)
    assert both.sum() == np.isfinite(found.loss_in).sum() and (found.error_in[both] > 0).all()


def test_a_run_is_read_by_itself_later(run):
    """By the task that the run keeps, without that of this process."""
    found = tokens.losses(ij.open_run(run.directory), dataset(), members=4)
    assert found.members.tolist() == [0, 5, 10, 15]
    check = found.members
    inside, _ = means_of_records(run, check)
    known = np.isfinite(inside)
    of_targets = [found.of_target(t).loss_in[1:].mean() for t in np.flatnonzero(known).tolist()]
    np.testing.assert_allclose(of_targets, inside[known], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('lora', [None, LoRA(rank=2, alpha=2.0)])
def test_members_that_began_with_a_checkpoint_or_adapt_one(tmp_path, lora):
    task = dataclasses.replace(TASK, params=BASE, lora=lora)
    trained(tmp_path, task)
    found = tokens.losses(ij.open_run(tmp_path), dataset(), base=BASE)
    check_adds_up(ij.open_run(tmp_path), found)


def test_of_members_that_share_a_subset_one_is_read(tmp_path):
    run = trained(tmp_path, members=8, repeats=2, design=ij.Design.BALANCED)
    chosen = tokens.members_to_read(run, 64)
    masks = run.masks[chosen]
    assert len(chosen) == 4 == len(np.unique(masks, axis=0))


def test_what_cannot_be_read_is_one_line(run, copied, tmp_path):
    balanced = {'members': 4, 'design': ij.Design.BALANCED}
    without = trained(tmp_path / 'none', keep_params=False, **balanced)
    with pytest.raises(FileNotFoundError, match='keep_params'):
        tokens.losses(without, dataset())
    with pytest.raises(ValueError, match='not the one'):
        tokens.losses(ij.open_run(run.directory), dataset().take(range(COUNT - 1)))
    with pytest.raises(ValueError, match='members=0'):
        tokens.losses(run, dataset(), members=0)
    with pytest.raises(ValueError, match='cosine'):
        tokens.keep(copied, dataset(), method=attribution.Gradients(cosine=True))
    shutil.rmtree(copied.directory / 'report')
    with pytest.raises(FileNotFoundError, match='report'):
        tokens.keep(copied, dataset(), method=attribution.Gradients())


@pytest.mark.slow
def test_scores_of_tokens_add_up_to_those_of_the_method(run):
    pairs = Pairs(np.array([3, 0, 14]), np.array([1, 1, 7]))
    found = tokens.scores(run, dataset(), attribution.Gradients(), pairs, member=2)
    models, records = attribution.read_run(run, dataset(), [2])
    whole = attribution.Gradients()(models, records).column(np.array([1, 7])).values
    (first, second), (third,) = found.of_target(1), found.of_target(7)
    for (example, values), expected in (
        (first, whole[3, 0]),
        (second, whole[0, 0]),
        (third, whole[14, 1]),
    ):
        assert values[0] == 0 and (values[1:] != 0).all()
        assert values.sum() == pytest.approx(expected, rel=1e-4), example
    assert found.member == 2 and found.method.name == 'dot'
    found.check(examples=COUNT, lengths=TASK.encode(dataset()).lengths)


class Counted(Quiet):
    """Counts members that are read."""

    def __init__(self):
        self.members = 0

    def advance(self, members):
        self.members += members


def test_what_is_kept_is_computed_once(copied, monkeypatch):
    read = Counted()
    kept = tokens.keep(copied, dataset(), method=attribution.Gradients(), progress=read)
    assert read.members == MEMBERS
    stored = tokens.read(copied)
    for name in ('loss_in', 'loss_out', 'error_in', 'error_out', 'members', 'included'):
        np.testing.assert_array_equal(getattr(stored.losses, name), getattr(kept.losses, name))
    assert stored.losses.tokens.vocabulary == kept.losses.tokens.vocabulary
    np.testing.assert_array_equal(stored.scores.scores, kept.scores.scores)
    assert 0 < len(kept.scores.targets) <= 3 * COUNT

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, 'load_member', None)
        tokens.keep(copied, dataset(), method=attribution.Gradients(), progress=read)
    assert read.members == MEMBERS
    fewer = tokens.keep(copied, dataset(), members=3, progress=read)
    assert read.members == MEMBERS + 3 and fewer.scores is None


def test_what_is_damaged_is_replaced(copied):
    tokens.keep(copied, dataset(), members=2)
    (file,) = (copied.directory / 'tokens.zarr' / 'losses.loss_in').glob('c*')
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match='loss_in'):
        tokens.read(copied)
    tokens.keep(copied, dataset(), members=2)
    tokens.read(copied)
    with pytest.raises(ValueError, match='another run'):
        TokenResults.load(copied.directory, run='0' * 64)
