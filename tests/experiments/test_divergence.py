"""Members that diverge are recorded as such, named, and left out."""

import numpy as np
import pytest

from influence_jax import store, training
from influence_jax.training import Trained


@pytest.mark.slow
def test_when_all_diverge_there_is_no_report_but_a_record(run_here):
    run, directory = run_here
    with pytest.raises(ValueError, match=r'all 24 members of .* diverged'):
        run(learning_rate=1e30)
    recorded = store.open_run(directory)
    np.testing.assert_array_equal(recorded.diverged, np.arange(24))
    assert np.isnan(recorded.measurement('loss')).all()
    assert not (directory / 'report').exists()
    with pytest.raises(ValueError, match=r'all 24 members of .* diverged'):
        run(learning_rate=1e30)


def test_some_diverge(run_here, monkeypatch, capsys):
    """Which do in a real training depends on rounding, so here the training is made up."""
    diverging = [3, 7]

    def made_up(program, *, members, masks, targets, **_):
        losses = np.random.default_rng(0).random((len(masks), len(targets['label'])), np.float32)
        losses = losses - 0.5 * masks
        losses[diverging, 5] = [np.nan, np.inf]
        for chunk in np.array_split(np.asarray(members), 5):
            rows = dict.fromkeys(program.task.measurements, losses[chunk])
            yield Trained(chunk, training.Member(rows, None))

    monkeypatch.setattr(training, 'train', made_up)
    run_here[0]()
    run = store.open_run(run_here[1])
    np.testing.assert_array_equal(run.diverged, diverging)
    assert len(run.complete) == 22
    assert np.isnan(run.measurement('loss')[diverging]).all()
    assert np.isfinite(run.measurement('loss')[run.complete]).all()
    printed = capsys.readouterr().out
    assert 'members: 22 of 24' in printed
    assert 'diverged members: 2' in printed
    page = (run_here[1] / 'report' / 'index.html').read_text()
    assert 'diverged' in page
    assert '3, 7' in page
