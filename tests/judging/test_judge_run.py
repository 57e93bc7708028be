"""The judge from Python: from finished runs to a leaderboard, continued after a stop."""

from typing import ClassVar

import numpy as np
import pytest

import influence_jax as ij
from influence_jax import attribution, judging
from influence_jax.attribution import Gradients
from influence_jax.data.wrong_labels import plant_wrong_labels
from influence_jax.estimators import adjusted, as_estimator, difference_in_means
from influence_jax.models import MLPConfig
from influence_jax.report import leaderboard
from influence_jax.store import RunLocked

N = 60


def planted(seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(N) % 2
    inputs = generator.normal(size=(N, 4)) + 2 * labels[:, None]
    inputs[1::10] = inputs[::10] + 0.01  # near-duplicates, of the other class
    dataset = ij.Dataset(
        {'input': inputs.astype(np.float32), 'label': labels},
        groups=np.arange(N) - (np.arange(N) % 10 == 1),
    )
    return plant_wrong_labels(dataset, 0.1, seed=0)


def trained(dataset, directory, **options):
    return ij.train_ensemble(
        ij.tasks.Classification(MLPConfig(4, 2, (8,))),
        dataset,
        output_dir=directory,
        recipe=ij.Recipe(epochs=20, batch_size=8, learning_rate=1e-2),
        **options,
    )


@pytest.fixture(scope='module')
def dataset():
    return planted()


@pytest.fixture(scope='module')
def runs(dataset, tmp_path_factory):
    directory = tmp_path_factory.mktemp('runs')
    return (
        trained(dataset, directory / 'run', members=26, keep_params=True),
        trained(dataset, directory / 'truth', members=30, repeats=3, seed=1),
    )


class Counting(Gradients):
    """Gradient cosine that counts how often it is made ready."""

    prepared: ClassVar[list[int]] = []

    def prepare(self, models, records):
        self.prepared.append(records.num_targets)
        return super().prepare(models, records)


def demanding(masks, losses, *, target_examples):
    raise AssertionError


demanding.least_members = 99


@pytest.mark.slow
def test_a_leaderboard_in_a_few_lines(runs, dataset, tmp_path):
    run, truth = runs

    def judged():
        return judging.judge_run(
            run,
            held_out=truth,
            dataset=dataset,
            estimators=[difference_in_means, as_estimator(demanding)],
            methods=[Counting(cosine=True), attribution.Loss(), attribution.BM25()],
            num_models=2,
            assisted=['cosine'],
            targets=25,
            resamples=10,
            scores_dir=tmp_path,
            judged=seen.append,
        )

    seen = []
    board = judged()
    assert [row.method.name for row in seen] == ['difference', 'cosine', 'loss', 'assisted']
    assert board.rows == tuple(seen)
    assert 'needs 99 members' in board.left_out['demanding']
    assert 'tokens' in board.left_out['bm25']
    assert '25, drawn at random' in board.facts['examples and targets']
    assert board.ceilings is not None
    for row in board.rows:
        assert row.cost.seconds > 0
        assert row.near_duplicates is not None
        assert 0 <= row.mislabels_by_margin.auroc.value <= 1
    assert board.rows[2].mislabels.auroc.value > 0.8  # of high losses
    by_detector = {one.method.name: one for one in board.detections}
    assert 'outlier_gradients' in by_detector and by_detector['own_loss'].scores.auroc.value > 0.8
    assert 'Detectors of wrong labels' in leaderboard.render(board)['leaderboard.html'].decode()
    assert len(list(tmp_path.glob('*.npy'))) == 4
    assert Counting.prepared == [25]
    again = judged()
    assert Counting.prepared == [25]  # read from the disk
    for one, other in zip(board.rows, again.rows, strict=True):
        assert one.lds.mean.value == other.lds.mean.value
        assert one.cost == other.cost


@pytest.mark.slow
def test_scores_are_the_same_on_some_targets(runs, dataset, tmp_path):
    run, truth = runs
    for targets in (None, [3, '7', 21]):
        judging.judge_run(
            run,
            detectors=(),
            held_out=truth,
            dataset=dataset,
            estimators=(),
            methods=[Gradients()],
            targets=targets,
            resamples=2,
            scores_dir=tmp_path / str(targets),
        )
    (every,), (some,) = (
        [np.load(path) for path in (tmp_path / str(targets)).glob('dot-*.npy')]
        for targets in (None, [3, '7', 21])
    )
    np.testing.assert_allclose(some, every[:, [3, 7, 21]], rtol=1e-4, atol=1e-6)


def test_scores_of_other_examples_are_refused(runs, dataset, tmp_path):
    run, truth = runs
    judging.judge_run(
        run,
        detectors=(),
        held_out=truth,
        dataset=dataset,
        estimators=(),
        methods=[Gradients()],
        resamples=2,
        scores_dir=tmp_path,
    )
    (path,) = tmp_path.glob('dot-*.npy')
    other = trained(planted(seed=1), tmp_path / 'other', members=16)
    with pytest.raises(ValueError, match='other contents') as error:
        judging.judge_run(other, scores=[path], estimators=(), methods=())
    assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match='other targets'):
        judging.judge_run(run, detectors=(), held_out=truth, scores=[path], targets=5)


def test_what_cannot_be_read_is_refused_only_where_it_was_asked_for(runs, dataset):
    run, truth = runs
    options = {'held_out': truth, 'estimators': [difference_in_means], 'resamples': 2}
    board = judging.judge_run(run, detectors=(), **options)
    assert [row.method.name for row in board.rows] == ['difference']
    assert 'give the dataset' in board.left_out['ekfac']
    with pytest.raises(ValueError, match='give the dataset'):
        judging.judge_run(run, detectors=(), methods=[Gradients()], **options)
    with pytest.raises(ValueError, match='keep_params'):
        judging.judge_run(
            run, detectors=(), models=truth, dataset=dataset, methods=[Gradients()], **options
        )
    with pytest.raises(ValueError, match='no scores'):
        judging.judge_run(run, detectors=(), methods=(), assisted=['cosine'], **options)


def test_targets_are_drawn_or_named(runs):
    run, _ = runs
    drawn = judging.choose_targets(run, 7, seed=3)
    assert len(np.unique(drawn)) == 7
    np.testing.assert_array_equal(drawn, judging.choose_targets(run, 7, seed=3))
    assert judging.choose_targets(run, ['9', 4, '4'], seed=0).tolist() == [4, 9]
    for wrong in (0, N + 1, ['nobody'], [N]):
        with pytest.raises(ValueError, match='target'):
            judging.choose_targets(run, wrong, seed=0)


def test_members_alone_are_cross_validated():
    generator = np.random.default_rng(0)
    masks = generator.random((28, 12)) < 0.5
    losses = (-1.0 * masks @ generator.normal(size=(12, 5))).astype(np.float32)
    board = judging.judge_members(
        masks, losses, np.full(5, -1), estimators=[difference_in_means, adjusted], resamples=5
    )
    assert [row.method.name for row in board.rows] == ['difference']
    assert 'adjusted' in board.left_out
    assert board.rows[0].lds.mean.value > 0.5


def test_scores_of_other_targets_stand_beside(runs, dataset, tmp_path):
    run, _ = runs
    for targets in (10, 20):
        board = judging.judge_run(
            run,
            dataset=dataset,
            estimators=(),
            methods=[attribution.Loss()],
            detectors=(),
            targets=targets,
            resamples=2,
            scores_dir=tmp_path,
        )
        assert [row.method.name for row in board.rows] == ['loss']
    assert len(list(tmp_path.glob('loss-*.npy'))) == 2


def test_an_estimator_of_ones_own_is_computed_each_time(runs, tmp_path):
    run, _ = runs

    def judged(sign):
        def mine(masks, losses, *, target_examples=None):
            found = difference_in_means(masks, losses, target_examples=target_examples)
            return found._replace(values=sign * found.values)

        board = judging.judge_run(
            run,
            estimators=[as_estimator(mine)],
            methods=(),
            targets=10,
            resamples=2,
            scores_dir=tmp_path,
        )
        return board.rows[0].lds_all.mean.value

    assert judged(1) == -judged(-1) != 0


def test_retraining_that_cannot_be_is_refused_before_anything_is_computed(runs, dataset):
    run, _ = runs
    for given, count, message in ((None, 3, 'give the dataset'), (dataset, N, f'at most {N - 2}')):
        with pytest.raises(ValueError, match=message):
            judging.judge_run(
                run,
                dataset=given,
                methods=(),
                estimators=[as_estimator(demanding)],
                retraining=judging.Retraining(count),
            )


def test_scratch_is_where_the_next_call_finds_it(runs, tmp_path):
    run, truth = runs
    (tmp_path / '.scratch').mkdir()
    (tmp_path / '.scratch' / 'left.npy').write_text('of a kill')
    seen = []

    def own(masks, losses, *, target_examples):
        return difference_in_means(masks, losses)

    def judge(**options):
        return judging.judge_run(
            run,
            held_out=truth,
            estimators=[as_estimator(own)],
            methods=[],
            targets=5,
            resamples=3,
            scores_dir=tmp_path,
            **options,
        )

    def look(row):
        seen.append({path.name.partition('-')[0] for path in (tmp_path / '.scratch').iterdir()})
        with pytest.raises(RunLocked, match='is being written by process'):
            judge()

    board = judge(judged=look)
    assert [row.method.name for row in board.rows] == ['own']
    assert seen == [{'own'}]
    assert not list(tmp_path.iterdir())
