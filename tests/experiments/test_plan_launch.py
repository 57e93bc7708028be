"""The planning launch: what is wrong is said in one line."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import language_ensemble
from experiments import plan as plan_launch
from experiments.language_ensemble import LanguageExperiment
from experiments.language_settings import ModelSettings, TextSettings
from experiments.plan import PlanSettings
from experiments.settings import EnsembleSettings
from influence_jax import hub, planning
from influence_jax.data.text.tokenizer import train_byte_bpe
from influence_jax.planning import GPT_NEO_1_3B
from influence_jax.training import Recipe

ROOT = Path(__file__).parents[2]


def _said(launch, *flags, **environment):
    command = [sys.executable, '-m', f'experiments.{launch}', *flags]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 1
    assert run.stdout == ''
    assert run.stderr.count('\n') == 1, run.stderr
    return run.stderr


def test_a_topology_that_does_not_exist():
    """Said before anything else is looked at."""
    said = _said('nq_gpt_neo', '--plan', '--topology=v5e:5x5', '--model=no/such/folder')
    assert said.startswith("error: no TPU topology 'v5e:5x5' is known; write one as v5e:4x4 (v4: ")


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='libtpu is installed')
def test_the_papers_run_needs_libtpu_but_no_network(tmp_path):
    offline = {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path)}
    said = _said('nq_gpt_neo', '--plan', '--topology=v5e:4x4', **offline)
    assert "pip install 'influence_jax[tpu]'" in said


def test_wrong_settings():
    with pytest.raises(ValueError, match=r'utilisation must lie in \(0, 1\], not 40'):
        PlanSettings(utilisation=40)
    with pytest.raises(ValueError, match=r"no TPU topology '4x4'"):
        PlanSettings(topology='4x4')


def test_a_launch_plans_the_run_that_it_would_train(unreachable, monkeypatch):
    planned = []
    monkeypatch.setattr(plan_launch, 'show', lambda settings, run, **how: planned.append(run))
    monkeypatch.setattr(planning, 'checkpoint_config', lambda *_, **__: GPT_NEO_1_3B)
    language_ensemble._plan(
        LanguageExperiment(
            text=TextSettings(unique=90, duplicated=10, copies=3),
            ensemble=EnsembleSettings(members=7, keep=0.75),
            model=ModelSettings(model='someone/model'),
            recipe=Recipe(epochs=4, batch_size=30),
        )
    )
    (run,) = planned
    assert (run.members, run.program.steps, run.full_data_steps) == (7, 12, 16)
    assert run.inputs.examples.tokens.shape == (120, 100)


def test_a_launch_that_can_read_its_records_plans_with_their_lengths(tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(plan_launch, 'show', lambda settings, run, **how: planned.append(run))
    monkeypatch.setattr(planning, 'checkpoint_config', lambda *_, **__: GPT_NEO_1_3B)
    train_byte_bpe(['a'], 258).save(tmp_path)  # a token a byte
    path = tmp_path / 'some.jsonl'
    lines = [{'prompt': 'p', 'completion': f' {n:04}'} for n in range(60)]
    path.write_text('\n'.join(map(json.dumps, lines)))
    language_ensemble._plan(
        LanguageExperiment(
            text=TextSettings(dataset=str(path), unique=60, duplicated=0),
            model=ModelSettings(model='someone/model', tokenizer=str(tmp_path)),
        )
    )
    assert planned[0].inputs.examples.tokens.shape == (60, 1 + 5 + 1)


@pytest.fixture
def unreachable(monkeypatch):
    """Neither the cache nor the hub has anything."""

    def fail(name, *asked):
        raise hub.NotFetched(f'{name}: not to be had')

    monkeypatch.setattr(hub, '_cached', lambda name, patterns: None)
    monkeypatch.setattr(hub, '_fetched', fail)


def test_help_says_what_a_mesh_left_empty_means():
    said = ' '.join(PlanSettings.__doc__.split())
    assert 'in training, each member is on one device; in planning, the mesh with most' in said
