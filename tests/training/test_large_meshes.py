"""A GPT-Neo trained on 8 devices, however they are arranged, is the one trained on one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
MESHES = ('1,1,1', '8,1,1', '2,2,2', '1,2,4')


@pytest.fixture(scope='module')
def losses():
    command = [sys.executable, '-m', 'tests.training.eight_devices', *MESHES]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(zip(MESHES, map(np.array, json.loads(run.stdout)), strict=True))


@pytest.mark.parametrize('mesh', MESHES[1:])
def test_losses_are_those_of_one_device(losses, mesh):
    np.testing.assert_allclose(losses[mesh], losses['1,1,1'], rtol=0, atol=1e-5)


def test_members_were_trained(losses):
    """Each on the records of its own subset, which it predicts better than the others."""
    first, second = losses['1,1,1']
    assert (first - second)[::2].mean() < -0.1
    assert (first - second)[1::2].mean() > 0.1
