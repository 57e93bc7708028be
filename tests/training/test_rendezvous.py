"""Processes that are to meet: who comes, who does not, who falls silent; threads stand for them."""

import functools
import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from influence_jax.training.rendezvous import Meeting, Peers, meet

SECONDS = 0.5
LONG = 20.0  # where nobody should have to wait


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


@pytest.fixture
def gather(port):
    """What each of several processes, given as (process, processes), has of the meeting."""
    opened = []

    def end_of(numbers, seconds):
        process, processes = numbers
        # Process 0 tells the others at its end that somebody is missing: they wait longer.
        seconds = seconds if process == 0 else 2 * seconds
        try:
            return meet(Meeting('127.0.0.1', port, processes, process, seconds))
        except ValueError as error:
            return str(error)

    def gather(*numbers, seconds=SECONDS):
        begun = time.monotonic()
        with ThreadPoolExecutor(len(numbers)) as pool:
            ends = list(pool.map(functools.partial(end_of, seconds=seconds), numbers))
        assert time.monotonic() - begun < 2 * seconds + 1
        opened.extend(one for one in ends if isinstance(one, Peers))
        assert not any('\n' in one for one in ends if isinstance(one, str))
        return ends

    yield gather
    for peers in opened:
        peers.close()


def test_all_meet_and_the_port_is_free_for_jax(gather, port):
    assert all(isinstance(one, Peers) for one in gather((2, 3), (0, 3), (1, 3), seconds=LONG))
    with socket.create_server(('', port)):
        pass


@pytest.mark.parametrize(
    ('numbers', 'messages'),
    [
        ([(0, 2)], ['1 of 2 processes did not come within 0.5 s (--process=1)']),
        ([(1, 2)], ['process 1 and process 0 did not meet within 1 s']),
        ([(0, 3), (2, 3)], ['--process=1)', '--process=1)']),
        ([(0, 3), (1, 3), (1, 3)], 3 * ['--process=1 was given to two processes']),
        ([(0, 2), (2, 3)], 2 * ['--processes=3, and process 0 with --processes=2']),
        ([(0, 2), (0, 2)], ['--coordinator=127.0.0.1:', '--coordinator=127.0.0.1:']),
    ],
    ids=['nobody', 'no process 0', 'one too few', 'one twice', 'of another number', 'two firsts'],
)
def test_who_does_not_meet_is_told_in_time(gather, numbers, messages):
    for end, message in zip(gather(*numbers), messages, strict=True):
        assert message in end


def test_one_that_comes_when_the_run_is_under_way_is_refused(gather, port):
    """jax's service listens there then, and says something else."""

    def answer(server):
        connection, _ = server.accept()
        with connection:
            connection.sendall(b'\x00\x00\x12\x04\x00\x00\x00\x00\x00')
            connection.recv(100)

    with socket.create_server(('127.0.0.1', port)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        (end,) = gather((1, 2))
    assert 'under way already' in end


def test_strangers_do_not_disturb(gather, port):
    def knock(text):
        for _ in range(50):
            try:
                with socket.create_connection(('127.0.0.1', port)) as stranger:
                    stranger.sendall(text)
                    return
            except OSError:
                time.sleep(0.01)

    texts = [
        b'GET / HTTP/1.1\r\n\r\n',
        b'',
        b'influence_jax [1]\n',
        b'influence_jax ' + b'{"a":' * 99,
    ]
    for text in texts:
        threading.Thread(target=knock, args=(text,), daemon=True).start()
    assert all(isinstance(one, Peers) for one in gather((0, 2), (1, 2), seconds=LONG))


@pytest.fixture
def pair(gather):
    """Two processes, both watching, and who is said to be lost."""
    peers = gather((0, 2), (1, 2))
    lost = [queue.Queue(), queue.Queue()]
    for one, said in zip(peers, lost, strict=True):
        one.watch(said.put)
    return peers, lost


def test_one_that_has_fallen_silent_is_missed_in_time(gather):
    first, _ = gather((0, 2), (1, 2))
    said = queue.Queue()
    first.watch(said.put)  # the other one does not beat
    assert 'nothing was heard of process 1 for 0.5 s' in said.get(timeout=LONG)


def test_one_that_has_ended_is_missed(pair):
    (_, second), (lost, _) = pair
    second._end_watch()
    second._connections[0].close()
    assert 'process 1 has ended' in lost.get(timeout=LONG)


def test_one_that_fails_lets_the_other_say_so_first(pair):
    (first, second), (_, lost) = pair
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(first.fail)
        assert 'process 0 has ended' in lost.get(timeout=LONG)
        assert not ended.done()
        second._connections[0].close()
        ended.result(timeout=LONG)


def test_those_that_beat_and_one_that_says_good_bye_are_not_missed(pair):
    (first, second), lost = pair
    time.sleep(1.5 * SECONDS)
    second.close()
    time.sleep(1.5 * SECONDS)
    first.close()
    assert all(said.empty() for said in lost)
