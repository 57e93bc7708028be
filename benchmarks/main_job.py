"""The default main job as a whole process: time, memory and whether it shows the effect.

python -m benchmarks.main_job [--output_dir=DIR] [flags of experiments.image_resnet but --dataset]
"""

import os
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np

from influence_jax import analysis, data, store
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates

_PREFIX = '--output_dir='


def main(arguments: list[str]) -> None:
    given = [a.removeprefix(_PREFIX) for a in arguments if a.startswith(_PREFIX)]
    directory = Path(given[-1] if given else 'runs/benchmark_main_job')
    rest = [a for a in arguments if not a.startswith(_PREFIX)]
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, '-m', 'experiments.image_resnet', f'{_PREFIX}{directory}', *rest]
    start = time.monotonic()
    process = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(process, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f'the job failed with status {os.waitstatus_to_exitcode(status)}')

    run = store.open_run(directory)
    masks, correct = run.masks[run.complete], run.measurement('correct')[run.complete]
    own = np.where(masks, correct, 0).sum(axis=1) / masks.sum(axis=1)
    summary = analysis.overview(
        run.masks, run.measurement('loss'), key=jax.random.key(run.manifest.seeds['seed'])
    ).summary
    dataset = data.load('clipart')
    duplicated = has_near_duplicate(near_duplicates(dataset), dataset.num_examples)
    print('\ngoal                                        measured')
    for goal, measured in {
        'at most 300 s of wall time': f'{seconds:.0f} s',
        'at most 2 GiB': f'{usage.ru_maxrss / 2**20:.2f} GiB',
        'processor time': f'{usage.ru_utime + usage.ru_stime:.0f} core-seconds',
        '>= 95 % accuracy on own subset, mean': f'{own.mean():.2%}',
        '  worst member': f'{own.min():.2%}',
        'AUROC of margin for near-duplicates >= 0.90': (
            f'{analysis.auroc(-summary.margin, duplicated):.3f}'
        ),
        'AUROC of self-influence for the same': (
            f'{analysis.auroc(-summary.self_influence, duplicated):.3f}'
        ),
        'median margin, near-duplicated / unique': (
            f'{np.median(summary.margin[duplicated]):.2f} / '
            f'{np.median(summary.margin[~duplicated]):.2f}'
        ),
        'median self-influence, likewise': (
            f'{np.median(summary.self_influence[duplicated]):.2f} / '
            f'{np.median(summary.self_influence[~duplicated]):.2f} nats'
        ),
    }.items():
        print(f'{goal:44}{measured}')


if __name__ == '__main__':
    main(sys.argv[1:])
