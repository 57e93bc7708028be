"""The launch of the explorer, as people start it."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from experiments import explore
from experiments.explore import Options
from influence_jax import report, tensors
from influence_jax.estimators import difference_in_means
from influence_jax.report import KeptTensors

M, N = 64, 12


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp('report')
    rng = np.random.default_rng(0)
    masks = rng.random((M, N)) < 0.5
    losses = (rng.normal(3, 0.1, (M, N)) - 2 * masks).astype(np.float32)
    run = tensors.as_run(masks, losses)
    report.gather(run, estimator=difference_in_means).save(directory)
    KeptTensors.of(run).save(directory)
    return directory


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, '-m', 'experiments.explore', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_serves_until_it_is_interrupted(saved):
    with started(saved, '--port=0') as process:
        address = process.stdout.readline().split()[0]
        assert address.startswith('http://127.0.0.1:') and not address.endswith(':0/')
        with urllib.request.urlopen(f'{address}data/0/targets/3.json') as answer:
            (page,) = json.loads(answer.read())
        assert page['histogram'] and page['losses']
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and 'Traceback' not in output + errors


def test_it_exports(saved, tmp_path, capsys):
    explore.explore([str(saved)], Options(export=str(tmp_path / 'out')))
    assert json.loads((tmp_path / 'out' / 'data' / 'index.json').read_text())['version'] == 1
    assert 'http.server' in capsys.readouterr().out


def refusal(monkeypatch, *arguments, **options):
    monkeypatch.setattr(explore.flags, 'read', lambda _: Options(**options))
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        explore.main(['explore', *map(str, arguments)])
    assert '\n' not in caught.value.code
    return caught.value.code


def test_a_port_in_use_is_one_line(monkeypatch, saved):
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        message = refusal(monkeypatch, saved, port=port)
    assert f'--port={port}' in message and '--port=0' in message


@pytest.mark.parametrize(
    ('arguments', 'options', 'expected'),
    [
        ([], {}, '0 directories'),
        (['a', 'b', 'c'], {}, '3 directories'),
        (['.'], {'port': 70_000}, '--port=70000'),
        (['.'], {'host': 'no such host'}, '--host=no such host'),
        (['.'], {'port': 0}, 'experiments.estimate'),
        (['.'], {'export': '.'}, 'no part of an export'),
    ],
)
def test_wrong_flags_are_one_line(monkeypatch, arguments, options, expected):
    assert expected in refusal(monkeypatch, *arguments, **options)


@pytest.mark.parametrize('name', ['uvicorn', 'bokeh'])
def test_what_is_not_installed_is_one_line(saved, name):
    code = (
        f'import sys; sys.modules[{name!r}] = None; from absl import app; '
        f'from experiments import explore, flags; flags.define(explore.Options()); '
        f'app.run(explore.main)'
    )
    command = [sys.executable, '-c', code, str(saved), '--port=0']
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "pip install 'influence_jax[explore]'" in ended.stderr.splitlines()[-1]
    assert name in ended.stderr and 'Traceback' not in ended.stderr
