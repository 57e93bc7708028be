"""The planning launch: what is wrong is said in one line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.plan import GPT_NEO_1_3B, PlanSettings, RunSettings, described, language_run
from influence_jax.models.gpt_neo.sharding import RULES
from influence_jax.training import plan
from influence_jax.training.mesh import MeshShape
from influence_jax.training.plan.collectives import Collectives

ROOT = Path(__file__).parents[2]


def _said(*flags):
    command = [sys.executable, '-m', 'experiments.plan', *flags]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 1
    assert run.stdout == ''
    assert run.stderr.count('\n') == 1, run.stderr
    return run.stderr


def test_a_topology_that_does_not_exist():
    said = _said('--topology=v5e:5x5')
    assert said.startswith("error: no TPU topology 'v5e:5x5' is known; write one as v5e:4x4 (v4: ")


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='libtpu is installed')
def test_without_libtpu():
    assert "pip install 'influence_jax[tpu]'" in _said('--topology=v5e:4x4')


def test_wrong_settings():
    with pytest.raises(ValueError, match=r'utilisation must lie in \(0, 1\], not 40'):
        PlanSettings(utilisation=40)


def _made(run, mesh=(4, 4, 1), crossing=0, unread=0):
    made = plan.Plan(
        plan.find('v5e:4x4'),
        MeshShape(*mesh),
        arguments_gib=3.0,
        temporaries_gib=2.0,
        peak_gib=4.5,
        collectives=Collectives(70, crossing, unread),
        seconds=1.0,
    )
    return described(made, run, 0.4)


def test_a_plan_in_words():
    """The paper's run: 45 steps of 50 records, 1,000 members, 1,500 targets."""
    run = language_run(GPT_NEO_1_3B, RunSettings())
    assert (run.program.steps, run.members, run.rules) == (45, 1000, RULES)
    said = _made(run)
    assert said['HBM a device'].startswith('4.50 GiB at the peak, 11.25 GiB free')
    assert said['collectives'] == '70, none across members'
    # 6 FLOPs a parameter and token to train, 2 to measure.
    flops = 1.3156e9 * 99 * (6 * 45 * 50 + 2 * 1500) * 1000
    assert f'{flops:.1e}'[:3] in said['FLOPs']
    assert said['chip-hours'].startswith(f'{flops / (0.4 * 197e12) / 3600:.0f} at an assumed')
    assert 'each device computes 13 rows, 2 of 52 for nothing' in said['note']
    assert 'note' not in _made(run, mesh=(8, 2, 1))
    assert _made(run, crossing=2)['collectives'] == '70, 2 across members'
    assert '3 that cannot be read' in _made(run, unread=3)['collectives']


def test_adapters_are_planned_on_a_frozen_base():
    run = language_run(GPT_NEO_1_3B, RunSettings(lora_rank=8))
    full = language_run(GPT_NEO_1_3B, RunSettings())
    assert run.inputs.base is not None
    assert full.inputs.base is None
    assert run.step_flops == pytest.approx(full.step_flops * 2 / 3, rel=0.01)
