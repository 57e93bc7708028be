"""Time and scores of EK-FAC and TRAK beside other libraries, on one clip-art member.

    python -m benchmarks.attribution RUN [--rounds=3] [--held_out=DIR]

RUN is a clip-art run with kept parameters (experiments.image_resnet --keep_params). The peers come
beside the project: pip install torch==2.13.0 kronfluence==1.0.1 dattri==0.3.0 traker==0.3.2.
Examples and targets are all images, labels those of the data (the empirical Fisher information),
so that scores can be compared number by number. Contenders take turns in processes of their own,
on all cores, and are timed from parameters to scores, without their imports; the first turn, with
compilation, stands beside the others.

With HELD_OUT, a run of the same images on other subsets with repeats, each contender's scores are
judged by it: the linear datamodelling score (analysis.judge), and how much it differs from the
first contender's, both with 95 % intervals over subsets and targets.
"""

import dataclasses
import multiprocessing
import statistics
import time
from typing import Any

import numpy as np
from absl import app, flags

_ROUNDS = flags.DEFINE_integer('rounds', 3, 'turns of every contender')
_PROJECTION = flags.DEFINE_integer('projection', 512, 'size of the projection of TRAK')
_COMPARED = flags.DEFINE_list('compared', ['resnet', 'trak', 'mlp'], 'what is compared')
_HELD_OUT = flags.DEFINE_string('held_out', '', 'run whose members judge the scores')
_BATCH = flags.DEFINE_integer('batch', 64, 'records at once')
_POOL = flags.DEFINE_integer('pool', 4, 'side of the squares of pixels that the perceptron sees')

_MLP = (256, 128)
_MLP_STEPS = 300


def ours(problem: Any, method: str) -> Any:
    """This project's."""
    import jax

    from influence_jax import attribution

    jax.config.update('jax_num_cpu_devices', 1)
    model, records = _jax_problem(problem)
    if method == 'ekfac':
        chosen: Any = attribution.KFAC(damping=problem.damping, fisher=attribution.Fisher.EMPIRICAL)
    else:
        chosen = attribution.TRAK(problem.projection, seed=int('another' in method))

    def run() -> np.ndarray:
        roomy = dataclasses.replace(records, batch=problem.batch, memory=2**33)
        scores = chosen([model], roomy)
        return np.asarray(scores.read(np.arange(scores.targets)))

    return run


def _jax_problem(problem: Any) -> Any:
    from influence_jax import attribution, tasks
    from influence_jax.data import Dataset
    from influence_jax.trees import map_named

    dataset = Dataset({'image': problem.images, 'label': problem.labels})
    task = _task(problem.network, dataset, problem.params)
    import jax

    bound = tasks.bind(task, dataset)
    engine_task: Any = bound.task
    like = engine_task.init(key=jax.random.key(0))
    params = map_named(lambda path, leaf: problem.params[path], like)
    return attribution.Model(engine_task, params), attribution.Records(
        bound.examples, bound.examples
    )


def _task(network: str, dataset: Any, params: Any) -> Any:
    from influence_jax.models import ResNetConfig
    from influence_jax.models.mlp import MLPConfig
    from influence_jax.tasks import Classification
    from influence_jax.tasks.images import standardized

    classes = int(dataset.array('label').max()) + 1
    if network == 'mlp':
        pixels = int(np.prod(dataset.array('image').shape[1:]))
        config: Any = MLPConfig(pixels, classes, _MLP)
        return Classification(
            config,
            inputs='image',
            prepare=lambda images: standardized(images).reshape(len(images), -1),
        )
    width = params['stem/kernel'].shape[-1]
    stages = 1 + max(int(path.split('/')[1]) for path in params if path.startswith('stages/'))
    patch = round((params['stem/kernel'].shape[2] / 3) ** 0.5)
    config = ResNetConfig(classes, width, (1,) * stages, patch)
    return Classification(config, inputs='image', prepare=standardized)


def _pooled(images: np.ndarray, side: int) -> np.ndarray:
    count, height, width, channels = images.shape
    squares = images.reshape(count, height // side, side, width // side, side, channels)
    return squares.mean((2, 4)).round().astype(np.uint8)


def _trained_mlp(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A multilayer perceptron that knows some of its images, full batch."""
    import jax
    import optax

    from influence_jax import tasks
    from influence_jax.data import Dataset
    from influence_jax.trees import named

    dataset = Dataset({'image': images, 'label': labels})
    bound = tasks.bind(_task('mlp', dataset, {}), dataset)
    task: Any = bound.task
    optimizer = optax.adam(1e-3)

    def step(carried: Any, _: None) -> Any:
        params, state = carried
        gradient = jax.grad(lambda p: task.measure(p, bound.examples)['loss'].mean())(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    params = task.init(key=jax.random.key(0))
    (params, _), _ = jax.jit(
        lambda p: jax.lax.scan(step, (p, optimizer.init(p)), length=_MLP_STEPS)
    )(params)
    return {path: np.asarray(leaf) for path, leaf in named(params).items()}


def _serve(name: str, problem: Any, pipe: Any) -> None:
    library, method = name.split(', ')
    if library == 'influence_jax':
        run = ours(problem, method)
    else:
        import torch

        from benchmarks import attribution_peers as peers

        torch.set_num_threads(torch.get_num_threads())
        run = {'kronfluence': peers.kronfluence, 'dattri': peers.dattri, 'traker': peers.traker}[
            library
        ](problem)
    pipe.send(None)
    while pipe.recv():
        start = time.perf_counter()
        scores = run()
        pipe.send((time.perf_counter() - start, scores))


def judge(scores: dict[str, np.ndarray]) -> None:
    """Prints how well each contender's scores predict the held-out members."""
    import jax

    from influence_jax import open_run
    from influence_jax.analysis import judge as judges
    from influence_jax.estimators import Columns

    run = open_run(_HELD_OUT.value)
    held_out = judges.held_out_members(
        run.masks[run.complete], run.measurement('loss')[run.complete]
    )
    targets = np.arange(held_out.measured.shape[2])
    resamples = judges.Resamples.draw(jax.random.key(0), masks=len(held_out.masks), groups=targets)
    first = None
    for name, matrix in scores.items():
        predicted = judges.predictions(Columns.of_matrix(matrix), held_out.masks)
        found = judges.rank_agreement(
            predicted, held_out.mean, held_out.without(targets), resamples
        ).mean
        _, low, high = found.interval()
        line = f'{name:38} LDS {found.value:.4f} ({low:.3f} .. {high:.3f})'
        if first is None:
            first = found
        else:
            apart = judges.Estimate(found.draws - first.draws)
            _, low, high = apart.interval()
            line += f', minus ours {apart.value:+.4f} ({low:+.4f} .. {high:+.4f})'
        print(line, flush=True)


def compete(names: list[str], problem: Any) -> None:
    """Prints seconds of every contender, and how their scores agree with the first."""
    context = multiprocessing.get_context('spawn')
    pipes, processes = {}, []
    for name in names:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(name, problem, there), daemon=True)
        process.start()
        there.close()  # so that its end is noticed
        processes.append(process)
        here.recv()
        pipes[name] = here
    seconds: dict[str, list[float]] = {name: [] for name in names}
    scores: dict[str, np.ndarray] = {}
    for _ in range(_ROUNDS.value + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            took, scores[name] = pipe.recv()
            seconds[name].append(took)
    for process in processes:
        process.terminate()
    own = scores[names[0]]
    parameters = sum(leaf.size for leaf in problem.params.values())
    print(f'\n{problem.network}, {parameters:,} parameters, {len(own):,} records, damping', end=' ')
    print('a tenth of the mean eigenvalue' if problem.damping is None else problem.damping)
    print(f'{"":38}{"first":>8}{"median":>8}{"ratio":>8}   scores beside ours')
    ours_seconds = statistics.median(seconds[names[0]][1:])
    for name in names:
        first, *others = seconds[name]
        middle = statistics.median(others)
        error = np.linalg.norm(scores[name] - own) / np.linalg.norm(own)
        alike = np.corrcoef(scores[name].ravel(), own.ravel())[0, 1]
        print(
            f'{name:38}{first:7.1f}s{middle:7.1f}s{middle / ours_seconds:8.2f}'
            f'   relative error {error:.1e}, correlation {alike:.4f}',
            flush=True,
        )
    if _HELD_OUT.value:
        judge(scores)


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise app.UsageError('name one clip-art run with kept parameters')
    from benchmarks import attribution_peers as peers
    from influence_jax import data, open_run
    from influence_jax.trees import named

    run, dataset = open_run(arguments[1]), data.load('clipart')
    run.remember(run.task(), dataset)
    images, labels = dataset.array('image'), np.asarray(dataset.array('label'))
    resnet = {path: np.asarray(leaf) for path, leaf in named(run.params(0)).items()}
    sizes = _BATCH.value, _PROJECTION.value
    problem = peers.Problem(resnet, 'resnet', images, labels, None, *sizes)
    if 'resnet' in _COMPARED.value:
        compete(['influence_jax, ekfac', 'kronfluence, ekfac'], problem)
    if 'trak' in _COMPARED.value:
        again = 'influence_jax, trak with another seed'
        compete(['influence_jax, trak', again, 'traker, trak'], problem)
    if 'mlp' not in _COMPARED.value:
        return
    images = _pooled(images, _POOL.value)
    mlp = peers.Problem(_trained_mlp(images, labels), 'mlp', images, labels, 1e-4, *sizes)
    compete(['influence_jax, ekfac', 'kronfluence, ekfac', 'dattri, ekfac'], mlp)


if __name__ == '__main__':
    app.run(main)
