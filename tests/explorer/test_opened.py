"""What can be opened, and what is refused in one line that says what to do."""

import json

import numpy as np
import pytest

from influence_jax.explorer import open_results
from influence_jax.report.results import RESULTS


def refusal(directory):
    with pytest.raises((ValueError, OSError)) as caught:
        open_results(directory)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_a_run_a_report_in_it_and_a_report_alone(planted_run, saved):
    for directory in (planted_run, planted_run / 'report'):
        opened = open_results(directory)
        assert opened.run == planted_run and opened.name == 'planted'
        assert opened.has_tensors and opened.shown is not None
    alone = open_results(str(saved))
    assert alone.run is None and alone.name == 'saved' and alone.has_tensors
    for kept, of_run in zip(alone.tensors(), opened.tensors(), strict=True):
        np.testing.assert_array_equal(kept, of_run)


def test_what_writes_results_is_said_where_there_are_none(tmp_path, planted_run):
    assert 'experiments.estimate' in refusal(tmp_path)
    (tmp_path / 'index.html').write_text('')
    assert 'earlier version' in refusal(tmp_path)
    (tmp_path / 'manifest.json').write_text('{}')
    assert 'report.write' in refusal(tmp_path)
    assert 'no directory' in refusal(tmp_path / 'absent')
    assert 'no directory' in refusal(planted_run / 'manifest.json')


@pytest.mark.parametrize('change', ['version', 'array', 'text'])
def test_other_versions_and_damage_are_refused(saved, change):
    group = saved / RESULTS / 'zarr.json'
    if change == 'version':
        fields = json.loads(group.read_text())
        fields['attributes']['format'] = 99
        group.write_text(json.dumps(fields))
    elif change == 'text':
        group.write_text(group.read_text().replace('id-3', 'id-4'))
    else:
        (file,) = (saved / RESULTS / 'overview.summary.margin').glob('c*')
        file.write_bytes(bytes(len(file.read_bytes())))
    assert 'write the report again' in refusal(saved)
