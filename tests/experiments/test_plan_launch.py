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
from influence_jax.planning.collectives import Collectives
from influence_jax.training import Recipe

ROOT = Path(__file__).parents[2]


def _said(done):
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ('name', 'flag'), [('nq_gpt_neo', '--model=no/such/folder'), ('image_resnet', '--dataset=none')]
)
def test_a_topology_that_does_not_exist(launch, name, flag):
    """Said before anything else is looked at."""
    done = launch('--plan', '--topology=v5e:5x5', flag, name=name)
    assert not done.stdout
    said = _said(done)
    assert said.startswith("error: no TPU topology 'v5e:5x5' is known; write one as v5e:4x4 (v4: ")


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='libtpu is installed')
def test_the_papers_run_needs_libtpu_but_no_network(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'experiments.nq_gpt_neo', '--plan', '--topology=v5e:4x4'],
        cwd=ROOT,
        env=os.environ | {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.startswith('Estimated from shapes')
    assert "pip install 'influence_jax[tpu]'" in _said(done)


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


def test_an_estimate_comes_first_and_a_line_before_and_after_each_mesh(monkeypatch, capsys):
    run = planning.language_run(GPT_NEO_1_3B, planning.RunSettings())
    printed = []

    def compile_step(program, topology, shape, *, rules, inputs):
        printed.append(capsys.readouterr().out)
        if shape.devices_per_member < 4:
            raise planning.TooLarge('Used 20.00G of 15.75G hbm.')
        return planning.Plan(topology, shape, 3.0, 2.0, 4.5, Collectives(70, 0, 0), seconds=80.0)

    monkeypatch.setattr(planning, 'compile_step', compile_step)
    made = plan_launch.show(PlanSettings(topology='v5e:4x4'), run)
    printed.append(capsys.readouterr().out)
    first, *between, last = printed
    assert first.startswith('Estimated from shapes') and 'chip-hours' in first
    assert 'GiB at least' in first and first.endswith('minutes\n')
    assert first.count('compiling the step') == 1
    for text in between:
        refused, following = text.splitlines()
        assert 'does NOT fit, after' in refused and 'Used 20.00G' in refused
        assert 'compiling the step' in following
    assert f'mesh {made.shape}: fits, 4.50 GiB at the peak, after 80 s' in last
    assert f'proposed: --mesh={",".join(map(str, made.shape.sizes))}' in last


def test_a_mesh_that_is_not_over_the_chips_is_refused_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(planning, 'compile_step', lambda *_, **__: pytest.fail('compiled'))
    run = planning.language_run(GPT_NEO_1_3B, planning.RunSettings())
    with pytest.raises(ValueError, match='takes 9 devices'):
        plan_launch.show(PlanSettings(topology='v5e:4x4', mesh='9,1,1'), run)
