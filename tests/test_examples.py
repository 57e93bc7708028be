"""The programs of docs/examples run as they stand, and say what they should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / 'docs' / 'examples'


def _run(name, cwd):
    ran = subprocess.run(
        [sys.executable, EXAMPLES / f'{name}.py'],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.splitlines()


@pytest.mark.slow
def test_masks_and_losses_of_anybody(tmp_path):
    pair, page = _run('own_losses', tmp_path)
    assert pair.startswith('example 3 lowers the loss on target 7 by 0.3')
    assert Path(page).is_file()


@pytest.mark.slow
def test_a_network_of_ones_own(tmp_path):
    _, page = _run('own_network', tmp_path)
    assert Path(page).is_file()


@pytest.mark.slow
def test_a_table_and_a_run_that_grows(tmp_path):
    *rows, page = _run('table', tmp_path)
    assert len(rows) == 3 and Path(page).is_file()


@pytest.mark.slow
def test_a_regression_with_targets_of_their_own(tmp_path):
    lines = _run('regression', tmp_path)
    assert len(lines) == 3 and all('lowers the squared error by' in line for line in lines)


def test_every_example_has_a_test():
    source = Path(__file__).read_text()
    assert all(f"'{path.stem}'" in source for path in EXAMPLES.glob('*.py'))
