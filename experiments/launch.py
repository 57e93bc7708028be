"""What every launch does around its main function."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from influence_jax.store import RunError

_TRACEBACK = flags.DEFINE_bool(
    'traceback', False, 'on an error, print where it arose instead of one line'
)


def use_cpu_cores_as_devices(streams: int) -> None:
    """Makes jax see one CPU device a stream (all of this process's cores for 0).

    To be called before jax is first used; changes nothing where there is a GPU or TPU.
    """
    # Linux tells which cores this process may use; elsewhere it is all of them.
    allowed = getattr(os, 'sched_getaffinity', None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    jax.config.update('jax_num_cpu_devices', streams or cores)


def command() -> str:
    """The command line of this launch, for whoever wants to repeat it."""
    module = f'experiments.{Path(sys.argv[0]).stem}'
    return shlex.join(['python', '-m', module, *sys.argv[1:]])


_FOR_MEMORY = {
    'mesh': 'a smaller --vmap, or with each member spread over several devices by --mesh',
    'vmap': 'a smaller --vmap',
    'output_dir': 'a device that has more',
}
"""What to continue with, where one of these flags is there."""


def run(main: Callable[[], None]) -> None:
    """Parses flags and runs `main`; what the user can mend is said in one line, with status 1."""

    def guarded(arguments: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        # It would say that PyTorch is not there, which nothing here needs.
        os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
        try:
            if len(arguments) > 1:
                raise ValueError(f'unexpected argument {arguments[1]!r}: flags begin with --')
            main()
        except (ValueError, OSError, RunError) as error:
            if _TRACEBACK.value:
                raise
            sys.exit(_one_line(error))
        except jax.errors.JaxRuntimeError as error:
            if _TRACEBACK.value:
                raise
            if 'RESOURCE_EXHAUSTED' not in str(error):
                if jax.distributed.is_initialized():
                    _leave_others(error)
                raise
            mend = next(mend for flag, mend in _FOR_MEMORY.items() if flag in flags.FLAGS)
            sys.exit(f'error: out of device memory; continue with {mend}')
        except KeyboardInterrupt:
            sys.exit('stopped; the same command continues the run')

    app.run(guarded, flags_parser=_parse)


def _leave_others(error: Exception) -> None:
    """Ends this process at once: in the usual way it would wait for those that are gone."""
    said = str(error).splitlines()[0]
    print(
        f'error: the processes of this run have lost each other ({said}); '
        f'the same commands continue it',
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        sys.exit(f'{_one_line(error)} (--help lists the flags)')


def _one_line(error: Exception) -> str:
    return f'error: {" ".join(str(error).split())}'
