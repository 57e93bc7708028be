"""Rooflines: what is counted of a compiled program's text, and what follows for a chip."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from influence_jax import planning
from influence_jax.planning.collectives import Collectives
from influence_jax.planning.roofline import CHIPS, StepCost, least_time, memory_bytes, step_cost
from influence_jax.training import Program
from influence_jax.training.automatic import accelerator_width
from influence_jax.training.mesh import MeshShape
from influence_jax.types import Task

ROOT = Path(__file__).parents[2]

PROGRAM = """HloModule step

%body (x: f32[8]) -> f32[8] {
  ROOT %huge = f32[1000000]{0} add(%x, %x)
}

ENTRY %main (a: f32[16,8], b: bf16[8,4]) -> (f32[16,4], pred[16]) {
  %a = f32[16,8]{1,0:T(8,128)} parameter(0), sharding={replicated}
  %b = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(1)
  %start = (f32[16,8]{1,0:T(8,128)S(1)}, f32[16,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[16,8]{1,0:T(8,128)S(1)} copy-done(%start)
  %dot = f32[16,4]{1,0:T(8,128)S(1)} fusion(%done, %b), kind=kOutput, calls=%body
  %less = pred[16]{0} fusion(%dot), kind=kLoop, calls=%body, metadata={op_name="%a(%b)"}
  %out = f32[16,4]{1,0:T(8,128)} copy(%dot)
  ROOT %both = (f32[16,4]{1,0}, pred[16]{0}) tuple(%out, %less)
}
"""


def test_bytes_are_those_that_cross_main_memory():
    """a is read once into the chip; b is read by the product; less and out are written."""
    assert memory_bytes(PROGRAM) == 16 * 8 * 4 + 8 * 4 * 2 + 16 + 16 * 4 * 4


def test_without_memory_spaces_every_operand_and_result_counts():
    plain = PROGRAM.replace('S(1)', '')
    copied = 2 * 16 * 8 * 4
    product = 16 * 8 * 4 + 8 * 4 * 2 + 16 * 4 * 4
    assert memory_bytes(plain) == copied + product + (256 + 16) + 2 * 256


def test_a_slice_moves_its_own_bytes():
    text = (
        'ENTRY %main {\n'
        '  %x = u8[1000,8]{1,0} parameter(0)\n'
        '  %s = ((u8[1000,8]{1,0}), u8[10,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x)\n'
        '}\n'
    )
    assert memory_bytes(text) == 10 * 8


def test_a_text_of_something_else():
    with pytest.raises(ValueError, match='ENTRY'):
        memory_bytes('HloModule empty')


def test_no_more_than_the_compiler_says_and_loops_are_counted():
    found = step_cost({'flops': 10.0, 'bytes accessed': 100.0}, PROGRAM)
    assert found == StepCost(10.0, 100.0, 100.0, 0)
    looping = PROGRAM.replace('copy(%dot)', 'while(%dot), condition=%c, body=%body')
    assert step_cost({'flops': 10.0, 'bytes accessed': 1e9}, looping).loops == 1


def test_bytes_of_a_program_of_this_machine():
    """A CPU has one memory: the sum of two vectors reads both and writes one."""
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)
    compiled = jax.jit(lambda a, b: a + b).lower(x, x).compile()
    assert memory_bytes(compiled.as_text()) == 3 * 4096


def test_the_slower_of_two_binds():
    chip = CHIPS['v5e']._replace(bfloat16_tflops=4, float32_tflops=2, gigabytes_per_second=1000)
    cost = StepCost(flops=2e12, accessed_bytes=5e12, memory_bytes=5e11)
    found = least_time(cost, chip)
    assert (found.by_flops, found.by_bytes, found.without_reuse) == (1.0, 0.5, 5.0)
    assert (found.seconds, found.bound, found.cautious_seconds) == (1.0, 'FLOPs', 5.0)
    assert found.members_per_second(width=16, steps=8) == 2.0
    assert found.members_per_second(width=16, steps=8, cautious=True) == 0.4
    halved = least_time(cost, chip, bfloat16=True)
    assert (halved.by_flops, halved.bound) == (0.5, 'FLOPs')
    assert least_time(cost._replace(memory_bytes=2e12), chip).bound == 'bytes'


def test_layers_extend_the_difference_of_two():
    one, two = StepCost(10, 100, 50), StepCost(14, 130, 50)
    assert one.with_layers(two, 12) == StepCost(10 + 11 * 4, 100 + 11 * 30, 50)
    assert one.with_layers(two, 1) == one


def test_every_kind_of_chip_that_plans_are_for_has_a_roofline():
    assert planning.topology.GENERATIONS.keys() < CHIPS.keys()
    assert all(chip.source.startswith('https://') for chip in CHIPS.values())
    h100 = CHIPS['H100 SXM']
    assert h100.bfloat16_tflops == 2 * h100.float32_tflops  # TF32


class Vector(Task):
    """A task of so many parameters, which are never made."""

    measurements = ()

    def __init__(self, size):
        self.size = size

    def init(self, *, key):
        return jnp.zeros(self.size)


def _program(size):
    return Program(Vector(size), optax.sgd(0.1), 100, 8, 8, 8)


@pytest.mark.parametrize(
    ('size', 'members', 'width'),
    [
        (1000, 1024, 256),
        (1000, 300, 64),
        (1000, 24, 16),
        (2**26, 1000, 8),
        (2**31, 9, 1),
    ],
)
def test_the_width_is_that_of_training(size, members, width):
    """Parameters and gradients fit into 4 GiB; a power of two up to 256, few places left over."""
    assert accelerator_width(_program(size), members=members) == width


def test_a_plan_in_words():
    topology, cost = planning.find('v5e:2x2'), StepCost(197e9, 819e8, 819e7)
    made = planning.Plan(
        topology, MeshShape(4, vmapped=16), 1.0, 1.0, 2.5, Collectives(0, 0, 0), 9.0, cost
    )
    store = planning.store_bytes(members=1000, examples=8000, targets=2000, measurements=3)
    said = planning.describe_members(made, _program(1000), store=store)
    assert said['store'].startswith('0.0255 GB on disk: 0.024 of measurements')
    assert said['a member'] == '1,000 parameters, 100 steps of 8'
    assert '2.50 GiB at the peak, 13.25 GiB free' in said['HBM a chip']
    # 16 members, 100 steps of 10 ms, or of 100 where nothing stays on the chip.
    assert said['speed'].startswith(
        'at most 16 members/s on one v5e chip (roofline estimate, bound by bytes); 1.6 if every'
    )
    assert 'estimation and report' in said['not counted']
    assert 'note' not in said
    looping = made._replace(cost=cost._replace(loops=2))
    assert '2 loops once' in planning.describe_members(looping, _program(1000))['note']
    assert 'speed' not in planning.describe_members(made._replace(cost=None), _program(1000))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="libtpu is not installed: pip install -e '.[tpu]' to compile for TPU slices",
)
@pytest.mark.parametrize('launch', ['image_resnet', 'language_model'])
def test_a_launch_of_small_members_plans_them(launch, tmp_path):
    """And trains none."""
    flags = ['--plan', '--topology=v5e:2x2', '--vmap=2', f'--output_dir={tmp_path / "run"}']
    done = subprocess.run(
        [sys.executable, '-m', f'experiments.{launch}', *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'members/s on one v5e chip (roofline estimate' in done.stdout
    assert 'members at a time: 2 on each chip' in done.stdout
    assert not (tmp_path / 'run').exists()
