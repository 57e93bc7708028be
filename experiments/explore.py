"""A local web application over stored results, or the same as static files.

    python -m experiments.explore DIR [DIR2] [--port=8765]
    python -m experiments.explore DIR [DIR2] --export=FOLDER

DIR is the directory of a run, or of a report. With DIR2 the two are compared.
"""

import uvicorn
from absl import app, flags

from influence_jax.explorer import Site, open_results, server

_PORT = flags.DEFINE_integer('port', 8765, 'port; 0 for any that is free', 0, 65535)
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'address to listen on')


def main(arguments: list[str]) -> None:
    site = Site([open_results(directory) for directory in arguments[1:]])
    application = server.application(site, host=_HOST.value)
    uvicorn.run(application, host=_HOST.value, port=_PORT.value, log_level='warning')


if __name__ == '__main__':
    app.run(main)
