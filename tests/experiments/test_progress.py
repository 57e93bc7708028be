"""How far, how fast, how long still."""

import io
import sys

import pytest
from experiments.progress import Progress

from experiments import progress


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


def test_a_line_now_and_then_in_a_log(clock, capsys):
    with Progress(total=1000, done=0) as bar:
        for _ in range(10):
            clock(8)
            bar.advance(100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == '200/1000 members, 12.5 members/s, 0:01:04 left'
    assert lines[-1] == '1000/1000 members, 12.5 members/s, 0:00:00 left'
    assert len(lines) == 5


def test_what_was_there_before_does_not_count_for_the_speed(clock, capsys):
    with Progress(total=7300, done=90) as bar:
        clock(50)
        bar.say('measured what is fastest')
        clock(20)
        bar.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        'continuing: 90 of 7300 members are there',
        'measured what is fastest',
        '100/7300 members, 0.5 members/s, 4:00:00 left',
    ]


def test_a_bar_on_a_terminal(clock, monkeypatch):
    terminal = _Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    with Progress(total=4, done=0) as bar:
        for _ in range(2):
            clock(1)
            bar.advance(2)
    text = terminal.getvalue()
    assert text.count('\r') == 2
    assert text.count('\n') == 1
    assert '4/4 members, 2 members/s, 0:00:00 left' in text


def test_a_reader_that_goes_does_not_stop_the_training(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, 'stderr', Closed())
    with Progress(total=3, done=1) as progress:
        progress.advance(2)
