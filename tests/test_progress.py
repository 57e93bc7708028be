"""How far, how fast, how long still."""

import io
import sys

import pytest

from influence_jax import progress
from influence_jax.progress import Progress, Quiet, TerminalProgress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def begun(*, total, done=0):
    bar = TerminalProgress()
    bar.start(total=total, done=done)
    return bar


def test_a_line_now_and_then_in_a_log(clock, capsys):
    bar = begun(total=1000)
    for _ in range(10):
        clock(8)
        bar.advance(100)
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == '200/1000 members, 12.5 members/s, 0:01:04 left'
    assert lines[-1] == '1000/1000 members, 12.5 members/s, 0:00:00 left'
    assert len(lines) == 5


def test_what_was_there_before_does_not_count_for_the_speed(clock, capsys):
    bar = begun(total=7300, done=90)
    clock(50)
    bar.log('measured what is fastest')
    clock(20)
    bar.advance(10)
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        'continuing: 90 of 7300 members are there',
        'measured what is fastest',
        '100/7300 members, 0.5 members/s, 4:00:00 left',
    ]


def test_a_bar_on_a_terminal(clock, monkeypatch):
    terminal = _Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    bar = begun(total=4)
    for _ in range(2):
        clock(1)
        bar.advance(2)
    bar.close()
    text = terminal.getvalue()
    assert text.count('\r') == 2
    assert text.count('\n') == 1
    assert '4/4 members, 2 members/s, 0:00:00 left' in text


def test_a_reader_that_goes_does_not_stop_the_training(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, 'stderr', Closed())
    bar = begun(total=3, done=1)
    bar.advance(2)
    bar.close()


def test_the_line_follows_what_was_found(capsys):
    bar = begun(total=1000)
    bar.advance(40)
    bar.set_total(60, 'wide')
    bar.advance(80)
    bar.set_total(0, 'narrow')
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('40/100 members, ') and lines[0].endswith('; wide')
    assert lines[-1].startswith('120/120 members, ') and lines[-1].endswith(' 0:00:00 left; narrow')


def test_both_are_what_training_reports_to(capsys):
    assert isinstance(TerminalProgress(), Progress)
    quiet = Quiet()
    assert isinstance(quiet, Progress)
    quiet.start(total=3, done=1)
    quiet.log('x')
    quiet.advance(2)
    quiet.set_total(1, 'x')
    quiet.close()
    assert capsys.readouterr() == ('', '')


def test_a_bar_of_something_else_is_named(clock, capsys):
    bar = TerminalProgress('model of all records')
    bar.start(total=1, done=0)
    bar.log('training on 1 device')
    clock(2)
    bar.advance(1)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        'model of all records: training on 1 device',
        'model of all records: 1/1 members, 0.5 members/s, 0:00:00 left',
    ]
