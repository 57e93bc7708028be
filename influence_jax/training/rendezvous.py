"""How the processes of one run meet and keep in touch: one line where they do not.

jax's own service waits for minutes and then ends the process from C++, in many lines. So before
it is started, process 0 listens at the very address, hears who comes, and sends everybody off; the
connections stay, and everybody is heard of every few seconds from then on.
"""

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_GREETING = 'influence_jax'
_LONGEST_LINE = 4096
_BEAT, _BYE, _FAILED = b'.', b'!', b'?'
_TICK = 1.0  # seconds between beats, at most
_RETRY = 0.2
_GRACE = 3.0  # seconds for a process to say itself why it ends


class Meeting(NamedTuple):
    """Who is to meet where.

    host, port: of process 0.
    processes: how many there are.
    process: which of them this is.
    seconds: how long to wait for the others, and how long one may be silent afterwards.
    """

    host: str
    port: int
    processes: int
    process: int
    seconds: float

    @property
    def address(self) -> str:
        """As the flag has it."""
        return f'--coordinator={self.host}:{self.port}'


class Peers:
    """The others, by connection; a process hears of process 0, which hears of all."""

    def __init__(self, meeting: Meeting, connections: dict[int, socket.socket]) -> None:
        self._meeting, self._connections = meeting, connections
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: set[int] = set()

    def watch(self, lost: Callable[[str], None]) -> None:
        """Beats in a thread and calls `lost`, with a reason, when another process falls silent.

        `close` ends it. Only the time in which this process itself runs counts, so that processes
        that are stopped and continued together do not take each other for lost.
        """
        self._thread = threading.Thread(target=self._beat, args=(lost,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Says good-bye: from here on nobody is missed."""
        self._end_watch()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(_BYE)
            connection.close()

    def fail(self) -> None:
        """Tells the others that this process ends with an error, and lets them go first."""
        self._end_watch()
        end = time.monotonic() + _GRACE
        for process, connection in self._connections.items():
            if process in self._lost:
                continue
            with contextlib.suppress(OSError):
                connection.sendall(_FAILED)
                while (left := end - time.monotonic()) > 0:
                    connection.settimeout(left)
                    if not connection.recv(4096):
                        break

    def _end_watch(self) -> None:
        self._stop.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def _beat(self, lost: Callable[[str], None]) -> None:
        meeting = self._meeting
        tick = min(_TICK, meeting.seconds / 4)
        silent = dict.fromkeys(self._connections, 0.0)
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, process)
            while silent and not self._stop.is_set():
                begun = time.monotonic()
                for process in silent:
                    # A full buffer is that of one who does not read: the silence will tell.
                    with contextlib.suppress(OSError):
                        self._connections[process].send(_BEAT)
                self._stop.wait(tick)
                for key, _ in selector.select(timeout=0):
                    heard = _received(self._connections[key.data])
                    if heard == b'' or (heard and _FAILED in heard):
                        if not self._stop.wait(min(_GRACE, meeting.seconds) if heard == b'' else 1):
                            self._lost.add(key.data)
                            lost(f'process {key.data} has ended')
                        return
                    silent[key.data] = -tick
                    if heard is not None and _BYE in heard:
                        selector.unregister(key.fileobj)
                        del silent[key.data]
                passed = min(time.monotonic() - begun, 2 * tick)
                for process in silent:
                    silent[process] += passed
                    if silent[process] > meeting.seconds:
                        self._lost.add(process)
                        lost(f'nothing was heard of process {process} for {meeting.seconds:g} s')
                        return


def meet(meeting: Meeting) -> Peers:
    """Waits until all processes are there.

    Raises:
      ValueError: who did not come within the time, who came twice, or who is of another number of
        processes; in every process that can be told.
    """
    if meeting.process == 0:
        return _receive(meeting)
    return _go(meeting)


def _receive(meeting: Meeting) -> Peers:
    end = time.monotonic() + meeting.seconds
    came: dict[int, socket.socket] = {}
    try:
        with _listening(meeting) as listener:
            while len(came) < meeting.processes - 1:
                listener.settimeout(max(end - time.monotonic(), 0.001))
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    raise ValueError(_missing(meeting, came)) from None
                _welcome(meeting, connection, came, end)
        for connection in came.values():
            connection.sendall(_line({'go': True}))
    except (ValueError, OSError) as error:
        for connection in came.values():
            with contextlib.suppress(OSError):
                connection.sendall(_line({'error': str(error)}))
            connection.close()
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f'{meeting.address}: a process was lost while meeting ({error})'
        ) from error
    return Peers(meeting, came)


def _listening(meeting: Meeting) -> socket.socket:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        return socket.create_server(
            ('', meeting.port),
            family=family,
            dualstack_ipv6=family == socket.AF_INET6,
            backlog=meeting.processes,
        )
    except OSError as error:
        raise ValueError(
            f'{meeting.address}: process 0 cannot listen there ({error.strerror}); '
            f'give another port, and --process=0 to one process alone'
        ) from error


def _welcome(
    meeting: Meeting, connection: socket.socket, came: dict[int, socket.socket], end: float
) -> None:
    """Takes down who it is; strangers are turned away."""
    connection.settimeout(max(min(end - time.monotonic(), 5.0), 0.001))
    told = _read_line(connection)
    process, processes = told.get('process'), told.get('processes')
    if not isinstance(process, int) or not isinstance(processes, int):
        connection.close()
        return
    wrong = None
    if processes != meeting.processes:
        wrong = (
            f'process {process} was started with --processes={processes}, and process 0 with '
            f'--processes={meeting.processes}: give all the same'
        )
    elif _is_there(came.get(process)) or not 0 < process < processes:
        wrong = f'--process={process} was given to two processes: give each a number of its own'
    if wrong is None:
        came[process] = connection
        return
    with contextlib.suppress(OSError):
        connection.sendall(_line({'error': f'{meeting.address}: {wrong}'}))
    connection.close()
    raise ValueError(f'{meeting.address}: {wrong}')


def _go(meeting: Meeting) -> Peers:
    end = time.monotonic() + meeting.seconds
    connection = _connected(meeting, end)
    try:
        connection.sendall(_line({'process': meeting.process, 'processes': meeting.processes}))
        connection.settimeout(meeting.seconds)  # process 0 may have begun to wait only now
        told = _read_line(connection)
    except OSError as error:
        raise ValueError(_nobody(meeting, str(error))) from error
    if told.get('go') is True:
        return Peers(meeting, {0: connection})
    connection.close()
    if isinstance(told.get('error'), str):
        raise ValueError(told['error'])
    raise ValueError(
        f'{meeting.address}: what answers there is no process 0 that waits for others; '
        f'its run may be under way already'
    )


def _connected(meeting: Meeting, end: float) -> socket.socket:
    reason = 'no answer'
    while (left := end - time.monotonic()) > 0:
        try:
            return socket.create_connection((meeting.host, meeting.port), timeout=left)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(_RETRY, max(left, 0)))
    raise ValueError(_nobody(meeting, reason))


def _nobody(meeting: Meeting, reason: str) -> str:
    return (
        f'{meeting.address}: process {meeting.process} and process 0 did not meet within '
        f'{meeting.seconds:g} s ({reason}); start all processes together, with the address of '
        f'process 0, or give them more time by --coordinator_timeout'
    )


def _missing(meeting: Meeting, came: dict[int, socket.socket]) -> str:
    missing = sorted(set(range(1, meeting.processes)) - came.keys())
    named = ', '.join(map(str, missing[:8])) + (', ...' if len(missing) > 8 else '')
    return (
        f'{meeting.address}: {len(missing)} of {meeting.processes} processes did not come within '
        f'{meeting.seconds:g} s (--process={named}); start all together, or give them more time '
        f'by --coordinator_timeout'
    )


def _line(told: dict[str, object]) -> bytes:
    return f'{_GREETING} {json.dumps(told)}\n'.encode()


def _read_line(connection: socket.socket) -> dict:
    """What another process says; nothing of what anybody else does."""
    read = b''
    while not read.endswith(b'\n') and len(read) < _LONGEST_LINE:
        # By bytes, so that nothing of what follows is taken: there are but a few.
        byte = connection.recv(1)
        if not byte or not _GREETING.encode().startswith(read[: len(_GREETING)]):
            return {}
        read += byte
    try:
        told = json.loads(read.decode().removeprefix(_GREETING))
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _is_there(connection: socket.socket | None) -> bool:
    """Whether the other end is still open; it may have been ended and started again."""
    if connection is None:
        return False
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b''
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.setblocking(True)


def _received(connection: socket.socket) -> bytes | None:
    """What has come; empty at the end of the connection, None if it was a false alarm."""
    try:
        return connection.recv(4096)
    except BlockingIOError:
        return None
    except OSError:
        return b''
