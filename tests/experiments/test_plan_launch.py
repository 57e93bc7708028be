"""The planning launch: what is wrong is said in one line."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from experiments.language_experiment import LanguageExperiment
from experiments.planned_run import (
    GPT_NEO_1_3B,
    GPT_NEO_1_3B_NAME,
    RunSettings,
    language_run,
    network,
)

from experiments import language_ensemble, plan_words
from experiments import plan as plan_launch
from experiments.language_settings import ModelSettings, TextSettings
from experiments.plan import PlanSettings
from experiments.settings import EnsembleSettings
from influence_jax import hub
from influence_jax import planning as plan
from influence_jax.data.text.tokenizer import train_byte_bpe
from influence_jax.models.gpt_neo import GPTNeoConfig
from influence_jax.models.gpt_neo.sharding import RULES
from influence_jax.planning.collectives import Collectives
from influence_jax.training import Recipe, WarmStart
from influence_jax.training.mesh import MeshShape

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
    with pytest.raises(ValueError, match=r'keep must lie in \(0, 1\], not 0'):
        RunSettings(keep=0)


def _made(run, mesh=(4, 4, 1), vmapped=1, crossing=0, unread=0):
    made = plan.Plan(
        plan.find('v5e:4x4'),
        MeshShape(*mesh, vmapped),
        arguments_gib=3.0,
        temporaries_gib=2.0,
        peak_gib=4.5,
        collectives=Collectives(70, crossing, unread),
        seconds=1.0,
    )
    return plan_words.described(made, run, 0.4)


def test_a_plan_in_words():
    """The paper's run: 45 steps of 50 records, 1,000 members, 1,500 targets."""
    run = language_run(GPT_NEO_1_3B, RunSettings())
    assert (run.program.steps, run.members, run.rules) == (45, 1000, RULES)
    said = _made(run)
    assert said['HBM a device'].startswith('4.50 GiB at the peak, 11.25 GiB free')
    assert said['collectives'] == '70, none across members'
    # 6 FLOPs a parameter and token to train, 2 to measure.
    a_pass = 1.3156e9 * 99 * 1500
    ensemble, everything = 1000 * a_pass * (6 * 1.5 + 2), a_pass * (6 * 3 + 2)
    assert float(said['FLOPs'].split(', ')[-1].split()[0]) == pytest.approx(
        ensemble + everything, rel=0.01
    )
    # While one member is trained on all records, three of the four groups of chips wait for it.
    hours = (ensemble + 4 * everything) / (0.4 * 197e12) / 3600
    assert float(said['chip-hours'].split()[0]) == pytest.approx(hours, abs=0.1)
    assert '(0.06 of them for the member on all records)' in said['chip-hours']
    assert 'decoding' in said['not counted']
    assert 'not of measuring' in said['not counted']
    assert 'each device computes 13 rows, 2 of 52 for nothing' in said['note']
    assert 'note' not in _made(run, mesh=(8, 2, 1))
    assert _made(run, crossing=2)['collectives'] == '70, 2 across members'
    assert '3 that cannot be read' in _made(run, unread=3)['collectives']


def test_vmapped_members_share_hours_but_the_one_on_all_records_is_alone():
    """Twice as many at once, each group for twice as long: the same hours."""
    run = language_run(GPT_NEO_1_3B, RunSettings())
    assert _made(run)['chip-hours'] == _made(run, vmapped=2)['chip-hours']


def test_the_task_is_that_of_the_run():
    """All weights are trained from the checkpoint's on."""
    run = language_run(GPT_NEO_1_3B, RunSettings())
    assert isinstance(run.program.task, WarmStart)
    assert run.inputs.base is not None


def test_keep_determines_how_long_members_train():
    half, most = (language_run(GPT_NEO_1_3B, RunSettings(keep=keep)) for keep in (0.5, 0.8))
    assert (half.program.steps, most.program.steps) == (45, 72)
    assert most.member_flops - half.member_flops == pytest.approx(27 * half.step_flops)
    assert half.everything_steps == most.everything_steps == 90
    assert half.everything_flops - half.member_flops == pytest.approx(45 * half.step_flops)


def test_a_launch_plans_the_run_that_it_would_train(unreachable, monkeypatch):
    planned = []
    monkeypatch.setattr(plan_launch, 'show', lambda settings, run, **how: planned.append(run))
    monkeypatch.setattr(plan_launch, 'network', lambda settings: GPT_NEO_1_3B)
    language_ensemble._plan(
        LanguageExperiment(
            text=TextSettings(unique=90, duplicated=10, copies=3),
            ensemble=EnsembleSettings(members=7, keep=0.75),
            model=ModelSettings(model='someone/model'),
            recipe=Recipe(epochs=4, batch_size=30),
        )
    )
    (run,) = planned
    assert (run.members, run.program.steps, run.everything_steps) == (7, 12, 16)
    assert run.inputs.examples.tokens.shape == (120, 100)


def test_a_launch_that_can_read_its_records_plans_with_their_lengths(tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(plan_launch, 'show', lambda settings, run, **how: planned.append(run))
    monkeypatch.setattr(plan_launch, 'network', lambda settings: GPT_NEO_1_3B)
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


def test_the_papers_network_is_known_without_a_network_connection(unreachable):
    settings = ModelSettings(model=GPT_NEO_1_3B_NAME, bfloat16=True, remat=True)
    assert network(settings) == GPT_NEO_1_3B
    plain = dataclasses.replace(settings, bfloat16=False, remat=False)
    expected = dataclasses.replace(GPT_NEO_1_3B, compute_dtype=jnp.float32, remat=False)
    assert network(plain) == expected
    with pytest.raises(OSError, match=r'gpt-neo-2\.7B: not to be had'):
        network(dataclasses.replace(settings, model='EleutherAI/gpt-neo-2.7B'))


def test_the_network_of_a_checkpoint_that_is_here_is_its_own(unreachable, tmp_path, monkeypatch):
    """Also where its folder has the name of the paper's."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / GPT_NEO_1_3B_NAME
    config = GPTNeoConfig(31, hidden=16, heads=4, max_positions=16)
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(config.to_hugging_face()))
    assert network(ModelSettings(model=GPT_NEO_1_3B_NAME)) == config
    (folder / 'config.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'no config\.json'):
        network(ModelSettings(model=GPT_NEO_1_3B_NAME))


def test_help_says_what_a_mesh_left_empty_means():
    said = ' '.join(PlanSettings.__doc__.split())
    assert 'in training, each member is on one device; in planning, the mesh with most' in said


def test_adapters_are_planned_on_a_frozen_base():
    run = language_run(GPT_NEO_1_3B, RunSettings(lora_rank=8))
    full = language_run(GPT_NEO_1_3B, RunSettings())
    assert not isinstance(run.program.task, WarmStart)
    assert run.step_flops == pytest.approx(full.step_flops * 2 / 3, rel=0.01)
