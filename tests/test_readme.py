"""What the README tells a newcomer to type."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import influence_jax as ij
from influence_jax import store
from influence_jax.models.mlp import MLPConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
LAUNCHES = sorted(set(re.findall(r'python -m (experiments\.\S+)([^#\n]*)', README)))


def test_there_are_two_setup_lines_and_ci_runs_both():
    lines = re.findall(r'^python3 -m venv .*$', README, flags=re.MULTILINE)
    assert len(lines) == 2
    assert 'experiments.image_resnet' in lines[0] and lines[1].endswith('-m pytest')
    ci = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
    assert '^python3 -m venv' in ci and 'main_line=${lines[0]} test_line=${lines[1]}' in ci


CHECKED = """
import gc, importlib, os, runpy, sys, warnings

warnings.simplefilter('ignore')
launches = [tuple(line.split(' ', 1)) for line in sys.stdin.read().splitlines()]
for module, _ in launches:
    importlib.import_module(module)  # once for all
gc.freeze()
failed = []
for module, arguments in launches:
    child = os.fork()
    if not child:
        sys.argv = [module, *arguments.split(), '--only_check_args']
        try:
            runpy.run_module(module, run_name='__main__', alter_sys=True)
        except SystemExit as end:
            os._exit(bool(end.code))  # without the seconds that Python takes to end
        os._exit(2)
    if os.waitpid(child, 0)[1]:
        failed.append(f'{module} {arguments}')
sys.exit('; '.join(failed) or 0)
"""


def test_flags_of_every_launch_exist():
    # absl parses and checks all flags, then exits without running the program.
    launches = [f'{module} {arguments.strip()}' for module, arguments in LAUNCHES]
    assert len(launches) > 10
    wrong = 'experiments.estimate --no_such_flag=1'
    found = subprocess.run(
        [sys.executable, '-c', CHECKED],
        cwd=ROOT,
        input='\n'.join([*launches, wrong]),
        text=True,
        capture_output=True,
        timeout=400,
    )
    # The wrong one alone.
    assert found.returncode and found.stderr.splitlines()[-1] == wrong, found.stderr


def test_the_first_program_is_the_example():
    first, *_ = _programs()
    example = (ROOT / 'docs' / 'examples' / 'own_network.py').read_text(encoding='utf-8')
    assert example.endswith(first)


def test_the_second_program_runs(tmp_path):
    _, second, _ = _programs()
    rng = np.random.default_rng(0)
    ids = tuple(f'image-{i}' for i in range(12))
    masks = rng.random((48, 12)) < 0.5
    manifest = store.Manifest(
        configuration={},
        seeds={},
        dataset=store.DatasetIdentity('none', ''),
        example_ids=ids,
        target_ids=ids,
        measurements=('loss', 'logit_gap'),
        members=48,
    )
    losses = np.where(masks, 0, 3) + rng.normal(size=(48, 12), scale=0.1)
    losses = losses.astype(np.float32)
    with store.create_or_resume(tmp_path / 'run', manifest, masks) as run:
        run.write(np.arange(48), {'loss': losses, 'logit_gap': -losses})
    run = ij.open_run(tmp_path / 'run')
    names = {'ij': ij, 'run': run, 'scores': run.influence().values}
    exec(second, names)
    np.testing.assert_allclose(names['summary'].self_influence, 3, atol=0.2)


@pytest.mark.slow
def test_the_third_program_runs(tmp_path):
    *_, third = _programs()
    generator = np.random.default_rng(0)
    data = ij.Dataset(
        {
            'input': generator.normal(size=(30, 4)).astype(np.float32),
            'label': generator.integers(0, 2, 30),
        }
    )
    run = ij.train_ensemble(
        ij.tasks.Classification(MLPConfig(4, 2, (3,))),
        data,
        members=32,
        output_dir=tmp_path / 'run',
        recipe=ij.Recipe(epochs=8, batch_size=8, learning_rate=2e-2),
        design=ij.subsets.Design.BALANCED,
        keep_params=True,
    )
    names = {'ij': ij, 'run': run, 'data': data}
    exec(third, names)
    assert names['scores'].unit == 'nats'
    assert (names['scores'].examples, names['scores'].targets) == (30, 30)


def _programs():
    return re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
