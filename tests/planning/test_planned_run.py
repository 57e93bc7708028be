"""The run of a language model that is planned: its FLOPs, its network, and the plan in words."""

import dataclasses
import json

import jax.numpy as jnp
import pytest

from influence_jax import hub, planning
from influence_jax.models.gpt_neo import SHARDING_RULES, GPTNeoConfig
from influence_jax.planning import GPT_NEO_1_3B, RunSettings, checkpoint_config, language_run
from influence_jax.planning.collectives import Collectives
from influence_jax.planning.planned_run import GPT_NEO_1_3B_NAME
from influence_jax.training import WarmStart
from influence_jax.training.mesh import MeshShape


@pytest.fixture
def unreachable(monkeypatch):
    """Neither the cache nor the hub has anything."""

    def fail(name, *asked):
        raise hub.NotFetched(f'{name}: not to be had')

    monkeypatch.setattr(hub, '_cached', lambda name, patterns: None)
    monkeypatch.setattr(hub, '_fetched', fail)


def _made(run, mesh=(4, 4, 1), vmapped=1, crossing=0, unread=0):
    made = planning.Plan(
        planning.find('v5e:4x4'),
        MeshShape(*mesh, vmapped),
        arguments_gib=3.0,
        temporaries_gib=2.0,
        peak_gib=4.5,
        collectives=Collectives(70, crossing, unread),
        seconds=1.0,
    )
    return planning.describe(made, run, 0.4)


def test_a_plan_in_words():
    """The paper's run: 45 steps of 50 records, 1,000 members, 1,500 targets."""
    run = language_run(GPT_NEO_1_3B, RunSettings())
    assert (run.program.steps, run.members, run.rules) == (45, 1000, SHARDING_RULES)
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
    # 1,000 members, 1,500 targets, 3 measurements.
    assert said['store'].startswith('0.0183 GB on disk: 0.018 of measurements')
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
    assert half.full_data_steps == most.full_data_steps == 90
    assert half.full_data_flops - half.member_flops == pytest.approx(45 * half.step_flops)


def test_the_papers_network_is_known_without_a_network_connection(unreachable):
    assert checkpoint_config(GPT_NEO_1_3B_NAME, bfloat16=True, remat=True) == GPT_NEO_1_3B
    expected = dataclasses.replace(GPT_NEO_1_3B, compute_dtype=jnp.float32, remat=False)
    assert checkpoint_config(GPT_NEO_1_3B_NAME, bfloat16=False, remat=False) == expected
    with pytest.raises(OSError, match=r'gpt-neo-2\.7B: not to be had'):
        checkpoint_config('EleutherAI/gpt-neo-2.7B', bfloat16=True, remat=True)


def test_the_network_of_a_checkpoint_that_is_here_is_its_own(unreachable, tmp_path, monkeypatch):
    """Also where its folder has the name of the paper's."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / GPT_NEO_1_3B_NAME
    config = GPTNeoConfig(31, hidden=16, heads=4, max_positions=16)
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps(config.to_hugging_face()))
    assert checkpoint_config(GPT_NEO_1_3B_NAME, bfloat16=False, remat=False) == config
    (folder / 'config.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'no config\.json'):
        checkpoint_config(GPT_NEO_1_3B_NAME, bfloat16=False, remat=False)


def test_adapters_are_planned_on_a_frozen_base():
    run = language_run(GPT_NEO_1_3B, RunSettings(lora_rank=8))
    full = language_run(GPT_NEO_1_3B, RunSettings())
    assert not isinstance(run.program.task, WarmStart)
    assert run.step_flops == pytest.approx(full.step_flops * 2 / 3, rel=0.01)


def test_wrong_settings():
    with pytest.raises(ValueError, match=r'keep must lie in \(0, 1\], not 0'):
        RunSettings(keep=0)
