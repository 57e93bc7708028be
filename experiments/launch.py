"""What every launch does around its main function."""

import contextlib
import os
import re
import shlex
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO, TypeVar

import jax
from absl import app, flags, logging

from experiments import terminal
from experiments.flags import define_all, read_all
from experiments.settings import AnalysisSettings, EnsembleSettings, MachineSettings
from influence_jax import compilation_cache, ensemble, kernels, report, store
from influence_jax.data import Dataset
from influence_jax.estimators import Columns, with_scores
from influence_jax.progress import TerminalProgress
from influence_jax.report.results import PAGE, REPORT
from influence_jax.run import Run
from influence_jax.store import RunError
from influence_jax.text import clean
from influence_jax.training import Executor, MeshShape, Recipe
from influence_jax.training.multihost import is_primary

_TRACEBACK = flags.DEFINE_bool(
    'traceback', False, 'on an error, print where it arose instead of one line'
)
_COMPILATION_CACHE = flags.DEFINE_bool(
    'compilation_cache',
    True,
    "keep compiled programs in the user's cache directory, so that the next launch starts at once",
)
_KERNELS = flags.DEFINE_bool(
    'kernels',
    True,
    'on CPUs, compute convolutions, norms, attention and summaries by kernels in C++, compiled by '
    'the compiler of this machine; XLA and numpy do so where there is none, and --compute_dtype is '
    'then float32 where it is left out',
)
_OF_ALL_LAUNCHES = 'traceback', 'compilation_cache', 'kernels'
flags.disclaim_key_flags()  # those of settings are the launch's own, see experiments.flags

Experiment = TypeVar('Experiment')


def main(run_experiment: Callable[[Experiment], object], defaults: Experiment) -> None:
    """Runs the experiment that flags ask for: one for each setting, with these defaults."""
    define_all(defaults)
    run(lambda: run_experiment(read_all(type(defaults))))


def command() -> str:
    """The command line of this launch, for whoever wants to repeat it."""
    module = f'experiments.{Path(sys.argv[0]).stem}'
    return shlex.join(['python', '-m', module, *sys.argv[1:]])


def provenance() -> dict[str, str]:
    """Returns how to repeat what is not kept in a run."""
    return {
        'command': command(),
        'versions': ', '.join(f'{name} {version}' for name, version in store.versions().items()),
        'commit': store.git_commit() or 'unknown',
    }


def use_devices(count: int) -> None:
    """Makes jax see so many CPU devices (one a core for 0), and refuses more than there are."""
    ensemble.use_cores(count or None)
    MeshShape(count or 1).mesh()


def show_notes(notes: Iterable[str]) -> None:
    """Prints what was changed of the data or left out."""
    if is_primary():
        for note in notes:
            print(note, file=sys.stderr)


def arguments(
    settings: EnsembleSettings,
    recipe: Recipe,
    machine: MachineSettings,
    analysis: AnalysisSettings,
    *,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Returns the arguments of `train_ensemble` that flags ask for."""
    if analysis.attribution and not machine.keep_params:
        raise ValueError(
            f'--attribution={analysis.attribution} reads trained parameters: add --keep_params'
        )
    if analysis.attribution and jax.process_count() > 1:  # reading parameters waits for all of them
        raise ValueError(
            f'--attribution={analysis.attribution} is for one process: leave it out, and judge the '
            f'run afterwards (python -m experiments.judge --run={machine.output_dir})'
        )
    return {
        'members': analysis.most_members(settings),
        'output_dir': machine.output_dir,
        'inclusion_prob': settings.keep,
        'design': settings.design,
        'repeats': settings.repeats,
        'recipe': recipe,
        'executor': executor or machine.executor(),
        'seed': settings.seed,
        'keep_params': machine.keep_params,
        'until_standard_error': analysis.until_standard_error or None,
        'estimator': analysis.estimator,
        'progress': TerminalProgress(),
        'command': command(),
    }


def report_of(run: Run, dataset: Dataset, analysis: AnalysisSettings, **more: Any) -> Path:
    """Writes the report of a run, prints it in short, and returns the page's path.

    One that is there already and would be the same again, to the byte, is left as it is.
    """
    directory = run.directory / REPORT
    origin = None if analysis.attribution else _origin(run, analysis, more)
    kept = _kept(directory, origin) if origin else None
    if kept is not None:
        terminal.log(f'nothing has changed since {directory} was written')
        terminal.show(report.terminal(kept), page := directory / PAGE)
        return page
    scores = attributions(run, dataset, analysis)
    estimator = analysis.estimator
    if analysis.assisted:
        estimator = with_scores({columns.method.name: columns for columns in scores})
    results = report.gather(run, estimator=estimator, attributions=scores, log=terminal.log, **more)
    return terminal.save_and_show(results, directory, origin=origin)


_OF_THE_COMPUTATION = ('XLA_FLAGS', 'JAX_PLATFORMS', 'JAX_DEFAULT_MATMUL_PRECISION')
"""Parts of the environment by which numbers may round otherwise."""


def _origin(run: Run, analysis: AnalysisSettings, more: Mapping[str, Any]) -> str | None:
    """What decides what is in the report of a run without attribution."""
    settings = {
        'estimator': analysis.estimator.name if analysis.estimator else '',
        'more': repr(sorted(more.items())),
        **{name: os.environ.get(name, '') for name in _OF_THE_COMPUTATION},
    }
    return report.origin_of(run.directory, settings)


def _kept(directory: Path, origin: str) -> report.Results | None:
    """The results of a report that would be the same if made again; None if it would not."""
    if not report.is_unchanged(directory, origin):
        return None
    try:
        return report.Results.load(directory)
    except (ValueError, OSError):
        return None


def attributions(run: Run, dataset: Dataset, analysis: AnalysisSettings) -> list[Columns]:
    """Scores of the methods that are asked for, kept with the run while they are computed."""
    if not analysis.attribution:
        return []
    from influence_jax import attribution, judging  # slow to import, seldom needed

    members = run.complete[: analysis.attribution_models].tolist()
    models, records = attribution.read_run(run, dataset, members)
    axes = store.ScoreAxes.of(run.manifest)
    return [
        judging.kept_columns(
            method(models, records),
            run.directory / store.SCORES,
            axes=axes,
            identity=judging.scores_identity(method, run, members),
            block=method.target_block(models, records),
        )[0]
        for method in analysis.methods()
    ]


_FOR_MEMORY = {
    'mesh': 'a smaller --vmap, or with each member spread over several devices by --mesh',
    'vmap': 'a smaller --vmap',
    'output_dir': 'a device that has more',
}
"""What to continue with, where one of these flags is there."""


def run(main: Callable[..., object], *, most_arguments: int = 0) -> None:
    """Parses flags and runs `main`; what the user can mend is said in one line, with status 1.

    Nothing that is said of an error, expected or not, can steer a terminal or is endless.

    Args:
        main: called with the arguments that are no flags.
        most_arguments: how many of these there may be.
    """

    def guarded(arguments: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        # It would say that PyTorch is not there, which nothing here needs.
        os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
        try:
            plain = arguments[1:]
            if len(plain) > most_arguments:
                raise ValueError(
                    f'unexpected argument {plain[most_arguments]!r}: flags begin with --'
                )
            _use_float32()
            with _compiled_programs():
                main(*plain)
            terminal.flush()
        except BrokenPipeError:
            terminal.end_quietly()
        except (ValueError, OSError, RunError, ImportError) as error:
            if _TRACEBACK.value:
                raise
            if jax.distributed.is_initialized() and re.match('[A-Z_]+: ', str(error)):
                lose_others(str(error).splitlines()[0])  # of XLA, and an error of a connection
            _end(_one_line(error))
        except Exception as error:
            if _TRACEBACK.value:
                raise
            if 'RESOURCE_EXHAUSTED' in str(error):
                mend = next(mend for flag, mend in _FOR_MEMORY.items() if flag in flags.FLAGS)
                _end(f'error: out of device memory; continue with {mend}')
            if (lacking := _no_device()) is not None:
                _end(lacking)
            if isinstance(error, jax.errors.JaxRuntimeError) and jax.distributed.is_initialized():
                lose_others(str(error).splitlines()[0])
            raise
        except KeyboardInterrupt:
            _end('stopped; the same command continues the run')

    sys.excepthook = _unexpected
    terminal.take_any_character()
    app.run(guarded, flags_parser=_parse)


def _no_device() -> str | None:
    """What to say where jax was asked for devices that are not there; None where it was not.

    It says so in one way or another, or fails in the middle of something else.
    """
    asked = getattr(jax.config, 'jax_platforms', None)
    if not asked:
        return None
    try:
        jax.devices()
    except Exception as error:
        why = f' ({_message(error)})' if str(error) else ''
        return clean(
            f'error: JAX_PLATFORMS={asked} asks for a device that jax does not find here{why}; '
            f'unset it, or set it to cpu'
        )
    return None


def _use_float32() -> None:
    """Everything here is made for it, and JAX_ENABLE_X64 would mix it with float64."""
    if getattr(jax.config, 'jax_enable_x64', False):
        print('JAX_ENABLE_X64 is left out of account: all is computed in float32', file=sys.stderr)
        jax.config.update('jax_enable_x64', False)


@contextlib.contextmanager
def _compiled_programs() -> Iterator[None]:
    """Has jax keep and read compiled programs, unless the user does not want it.

    Whatever is wrong with the cache is said in one line: jax would say it of each program.
    """
    kernels.use(_KERNELS.value)
    if not _COMPILATION_CACHE.value:
        jax.config.update('jax_enable_compilation_cache', False)
    warn, said = warnings.showwarning, False

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        nonlocal said
        if 'persistent compilation cache' not in str(message):
            warn(message, category, filename, lineno, file, line)
        elif not said:
            said = True
            terminal.log(f'some programs are compiled anew: {message}')

    with compilation_cache.enabled(log=terminal.log) as used:
        if used is None and not getattr(jax.config, 'jax_compilation_cache_dir', None):
            jax.config.update('jax_enable_compilation_cache', False)  # it has been said once
        warnings.showwarning = show
        try:
            yield
        finally:
            warnings.showwarning = warn


_leaving = threading.Lock()
_before_leaving: list[Callable[[], None]] = []


def leaving_by(farewell: Callable[[], None]) -> None:
    """What is to be done when this process ends by an error while others wait for it."""
    _before_leaving.append(farewell)


def lose_others(why: str) -> None:
    """Ends this process at once: in the usual way it would wait for those that are gone."""
    _leave(
        f'error: the processes of this run have lost each other ({clean(why)}); '
        f'the same commands continue it'
    )


def _end(message: str) -> NoReturn:
    """Ends with a line and status 1; among several processes without waiting for the others."""
    if jax.distributed.is_initialized():
        _leave(message)
    sys.exit(message)


def _leave(message: str) -> NoReturn:
    with _leaving:  # never given back: who comes second has nothing to say any more
        print(message, file=sys.stderr, flush=True)
        for farewell in _before_leaving:
            farewell()
        os._exit(1)


def _parse(arguments: list[str]) -> list[str]:
    for name in _OF_ALL_LAUNCHES:  # --help lists them beside the launch's own
        flags.FLAGS.register_key_flag_for_module(arguments[0], flags.FLAGS[name])
    try:
        return flags.FLAGS(arguments)
    except BrokenPipeError:  # nobody reads the help to its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except flags.Error as error:
        sys.exit(f'{_one_line(error)} (--help lists the flags)')


def _one_line(error: Exception) -> str:
    return clean(f'error: {_message(error)}')


def _message(error: Exception) -> str:
    """What an error says, arguments of the library called by the names of their flags."""
    text = re.sub(r'\binclusion_prob\b', '--keep', ' '.join(str(error).split()))
    if 'until_standard_error' in flags.FLAGS and flags.FLAGS['until_standard_error'].value:
        text = re.sub(r'\bmembers=', 'max_members=', text)
    for name in filter(str.isidentifier, flags.FLAGS):  # absl has one that is called '?'
        # Whole words alone, and of plain ones only where a value follows.
        after = '' if '_' in name else r'(?==)'
        text = re.sub(rf'(?<![-\w./]){name}\b{after}', f'--{name}', text)
    return text


def _unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Where a bug arose, line for line."""
    for text in traceback.format_exception(kind, error, trace):
        for line in text.removesuffix('\n').split('\n'):
            print(clean(line), file=sys.stderr)
