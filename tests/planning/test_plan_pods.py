"""GPT-Neo 1.3B planned for real TPU slices, by the compiler that they use; minutes.

Needs libtpu (`pip install -e '.[tpu]'`), but no TPU.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from influence_jax import planning as plan

ROOT = Path(__file__).parents[2]
# | v5e:4x4 (4, 4, 1) | members at a time | arguments | temporaries | peak | ...
ROW = re.compile(
    r'^\| (\S+) \((\d+), (\d+), (\d+)\)(?:, proposed)? \| \d+(?: \| [\d.]+){2} \| ([\d.]+) \|', re.M
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec('libtpu') is None,
        reason="libtpu is not installed: pip install -e '.[tpu]' to compile for TPU slices",
    ),
]


def _plan(*flags):
    """What the launch prints; a process of its own, since libtpu is loaded once and for all."""
    command = [sys.executable, '-m', 'experiments.plan', *flags]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def _assert_fits(text, *, members):
    """And returns the peak in GiB."""
    said = dict(line.strip().split(': ', 1) for line in text.splitlines() if ': ' in line)
    assert said['members at a time'].startswith(f'{members}, ')
    peak, free = map(float, re.findall(r'([\d.]+) GiB', said['HBM a device'])[:2])
    limit = plan.find(said['topology'].split(',')[0]).generation.memory_gib
    assert 3 < peak < limit
    assert free == pytest.approx(limit - peak, abs=0.011)
    total, crossing = said['collectives'].split(', ')
    assert int(total) > 20
    assert crossing == 'none across members'
    # 6 FLOPs for each of 1.3156 billion parameters and 50 * 99 tokens.
    assert float(said['FLOPs'].split()[0]) == pytest.approx(3.91e13, rel=0.01)
    return peak


def _recorded_peaks():
    """GiB of a device, by slice and mesh, as docs/results/plans.md has them of whole members."""
    rows = ROW.findall((ROOT / 'docs' / 'results' / 'plans.md').read_text())
    return {(topology, ','.join(mesh)): float(peak) for topology, *mesh, peak in rows}


@pytest.mark.parametrize(
    ('topology', 'mesh', 'members'),
    [
        ('v5e:4x4', '4,4,1', 4),
        ('v5e:16x16', '64,4,1', 64),
        ('v5p:2x2x4', '4,2,2', 4),
        ('v6e:4x4', '4,4,1', 4),
    ],
)
def test_members_fit_and_never_talk_to_each_other(topology, mesh, members):
    peak = _assert_fits(_plan(f'--topology={topology}', f'--mesh={mesh}'), members=members)
    assert peak == pytest.approx(_recorded_peaks()[topology, mesh], rel=0.15)


def test_one_chip_a_member_does_not_fit_and_a_mesh_that_does_is_proposed():
    """f32 parameters and AdamW's moments alone take 14.7 of 15.75 GiB."""
    text = _plan('--topology=v5e:2x2', '--mesh=4,1,1')
    assert 'mesh (4, 1, 1): does NOT fit' in text
    assert re.search(r'\d+(\.\d+)?G.* exceeds .*15\.75G', text)
    assert 'proposed: --mesh=2,2,1' in text
    _assert_fits(text, members=2)
