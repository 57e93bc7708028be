"""A local web application over stored results, or the same as static files.

    python -m experiments.explore DIR [DIR2] [--port=8765]
    python -m experiments.explore DIR [DIR2] --export=FOLDER

DIR is the directory of a run, or of a report such as that of experiments.estimate. With DIR2 the
two are compared. Nothing is fetched from elsewhere, and by default nobody elsewhere can read it.
An export needs a web server, such as `python -m http.server --directory=FOLDER`.

Imports little, so that the table is there soon: not `experiments.launch`, which trains.
"""

import contextlib
import dataclasses
import errno
import functools
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, logging

from experiments import flags
from influence_jax.explorer import Site, open_results
from influence_jax.store import RunError
from influence_jax.text import clean

_MISSING = "needs what is not installed ({}): pip install 'influence_jax[explore]'"


@dataclasses.dataclass(frozen=True)
class Options:
    """How to show the results.

    Attributes:
        port: of the server; 0 for any that is free.
        host: address to listen on; 0.0.0.0 shows the results to the whole network.
        export: folder for static files, instead of a server; new, empty, or of an earlier export.
    """

    port: int = 8765
    host: str = '127.0.0.1'
    export: str = ''

    def check(self) -> None:
        """Refuses a port that is none; ValueError."""
        if not 0 <= self.port < 2**16:
            raise ValueError(f'--port={self.port} must be in 0 .. 65535')


def explore(directories: Sequence[str], options: Options) -> None:
    """Serves the results of one or two directories until it is interrupted, or exports them."""
    options.check()
    if not 1 <= len(directories) <= 2:
        raise ValueError(
            f'{len(directories)} directories: give that of a run or of a report, or two to compare'
        )
    if options.export:
        export(directories, Path(options.export))
        return
    import uvicorn

    from influence_jax.explorer import server

    # Before minutes are spent, and so that nobody takes it meanwhile.
    with _listening(options.host, options.port) as listening:
        site = Site([open_results(directory) for directory in directories])
        application = server.application(site, host=options.host)
        port = listening.getsockname()[1]
        shown = f'[{options.host}]' if ':' in options.host else options.host
        print(f'http://{shown}:{port}/  (Ctrl-C ends it)', flush=True)
        settings = uvicorn.Config(application, log_level='warning', lifespan='off')
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])


def export(directories: Sequence[str], folder: Path) -> None:
    """Writes the results as static files."""
    from rich.progress import track

    from influence_jax.explorer import export as exporting

    exporting.check_folder(folder)  # before minutes are spent
    site = Site([open_results(directory) for directory in directories], shard=exporting.SHARD)
    failed = exporting.write(site, folder, track=functools.partial(track, description='exporting'))
    size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    print(f'{folder}: {size / 2**20:.1f} MiB; serve it with python -m http.server --directory=DIR')
    if failed:
        print(clean(f'{len(failed)} documents hold an error, the first: {failed[0]}'))


def _listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        OSError: another process has the port, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        if getattr(error, 'errno', None) == errno.EADDRINUSE:
            raise OSError(
                f'--port={port} is in use: give another, or --port=0 for any that is free'
            ) from error
        raise OSError(
            f'cannot listen on --host={host} --port={port}: {error}; give an address that this '
            f'machine has'
        ) from error


def main(arguments: list[str]) -> None:
    """Does what the command line asks for; what the user can change is said in one line."""
    logging.set_verbosity(logging.WARNING)
    jax.config.update('jax_platforms', 'cpu')  # an accelerator is for those who train
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        explore(arguments[1:], flags.read(Options))
    except ImportError as error:
        if not error.name or error.name.partition('.')[0] not in ('bokeh', 'starlette', 'uvicorn'):
            raise
        sys.exit(f'error: {_MISSING.format(error.name)}')
    except (ValueError, OSError, RunError) as error:
        sys.exit(clean(f'error: {" ".join(str(error).split())}'))
    except KeyboardInterrupt:
        sys.exit('stopped')


if __name__ == '__main__':
    flags.define(Options())
    app.run(main)
