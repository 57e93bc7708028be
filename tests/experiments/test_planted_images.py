"""An ensemble of images among which near-duplicates were planted, from the flags to the page."""

import csv

import pytest

from influence_jax import store
from influence_jax.data.near_duplicates import ImageChange
from influence_jax.report import theme

PLANTED = {'duplicated': 4, 'copies': 3, 'duplication': ImageChange.NOISE, 'unique': 30}


@pytest.fixture
def unsaved(monkeypatch):
    """Figures are drawn, but spared the saving."""
    monkeypatch.setattr(theme, 'png', lambda _: b'')


@pytest.mark.slow
@pytest.mark.usefixtures('unsaved')
def test_a_run_with_planted_images(run_here, capsys):
    run, directory = run_here
    run(**PLANTED)
    seen = store.open_run(directory)
    assert '30 unique examples and 4 in 3 versions each by noise' in seen.shown.provenance
    assert [name.count('~') for name in seen.example_ids] == [0] * 30 + [0, 1, 1] * 4
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'targets with a near-duplicate: 12 (injected' in printed
    assert 'Unique and near-duplicated targets' in printed
    assert 'the paper' not in printed
    page = (directory / 'report' / 'index.html').read_text()
    assert '<h2>Unique and near-duplicated images</h2>' in page
    assert '30 images written once and 12 in 4 clusters' in page
    assert 'has near-duplicates (12)' in page
    for of_texts in ('BLEU', 'GPT-Neo'):
        assert of_texts not in page
    with (directory / 'report' / 'targets.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['near_duplicate'] for row in rows] == ['0'] * 30 + ['1'] * 12
    assert sum(row['name'].startswith('noise of standard deviation') for row in rows) == 8
    assert 'noise of standard deviation' in page

    for changed in ({}, PLANTED | {'copies': 4}, PLANTED | {'duplication': ImageChange.JPEG}):
        with pytest.raises(store.RunError, match=r'another configuration.*dataset'):
            run(**changed)
