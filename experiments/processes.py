"""Runs over several processes, one a host: how they find each other, and who writes the run."""

import atexit
import dataclasses
import math
import threading
from typing import Any

import jax

from experiments import launch
from influence_jax import ensemble
from influence_jax.training import rendezvous
from influence_jax.training.mesh import MeshShape

AUTO = 'auto'
_LONGEST_REPORT = 24 * 3600
"""Seconds for which the others wait at their end while process 0 writes the report."""


@dataclasses.dataclass(frozen=True)
class ProcessSettings:
    """The processes that train one run together, one a host, each started by the same command.

    Attributes:
        coordinator: HOST:PORT of process 0, for all processes; auto where the cluster tells (Cloud
            TPU, Slurm, Open MPI). Left empty, this process trains alone.
        processes: how many there are; not with auto.
        process: which of them this is, from 0; not with auto.
        coordinator_timeout: seconds to wait for the others at the start, and for a sign of life
            of them later.
    """

    coordinator: str = ''
    processes: int = 1
    process: int = 0
    coordinator_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.coordinator_timeout < 2**20:
            raise ValueError(
                f'--coordinator_timeout={self.coordinator_timeout:g}: give 1 or more seconds'
            )
        numbered = self.processes != 1 or self.process != 0
        if self.coordinator in ('', AUTO):
            if numbered:
                raise ValueError(
                    '--processes and --process are for --coordinator=HOST:PORT of process 0'
                )
            return
        host, _, port = self.coordinator.rpartition(':')
        if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 2**16:
            raise ValueError(f'--coordinator={self.coordinator}: give HOST:PORT of process 0')
        if self.processes < 2 or not 0 <= self.process < self.processes:
            raise ValueError(
                f'--process={self.process} of --processes={self.processes}: give the number of '
                f'processes, 2 or more, and which this is, from 0'
            )

    def join(self, shape: MeshShape | None) -> None:
        """Meets the other processes; to be called before jax is first used.

        Raises:
            ValueError: members are not on a mesh, the mesh is not over all devices, or the
                other processes cannot be found.
        """
        if not self.coordinator:
            return
        if shape is None:
            raise ValueError('--coordinator is for members on a mesh: add --mesh')
        ensemble.use_cores(max(1, shape.devices // self.processes))
        # A process that is told to stop should: the run goes on from its checkpoints.
        jax.config.update('jax_enable_preemption_service', False)
        self._meet()
        if shape.devices != jax.device_count():
            raise ValueError(
                f'a mesh of {shape} takes {shape.devices} devices, but {jax.process_count()} '
                f'processes have {jax.device_count()}: --mesh must be over all of them'
            )

    def _meet(self) -> None:
        """Starts jax's service when all are there, and watches over the others from then on."""
        seconds = math.ceil(self.coordinator_timeout)
        where: dict[str, Any] = {}
        if self.coordinator != AUTO:
            host, _, port = self.coordinator.rpartition(':')
            where = {
                'coordinator_address': self.coordinator,
                'num_processes': self.processes,
                'process_id': self.process,
            }
            peers = rendezvous.meet(
                rendezvous.Meeting(
                    host.strip('[]'),
                    int(port),
                    self.processes,
                    self.process,
                    self.coordinator_timeout,
                )
            )
            peers.watch(launch.lose_others)
            launch.leaving_by(peers.fail)
            atexit.register(_part, peers)
        # jax would end this process from C++, in many lines: it gets more time than is given.
        late = threading.Timer(
            seconds,
            launch.lose_others,
            [f'--coordinator={self.coordinator}: no start in {seconds} s'],
        )
        late.daemon = True
        late.start()
        try:
            jax.distributed.initialize(
                **where,
                initialization_timeout=4 * seconds,
                shutdown_timeout_seconds=_LONGEST_REPORT,
                heartbeat_timeout_seconds=seconds if self.coordinator == AUTO else 4 * seconds,
            )
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f'--coordinator={self.coordinator}: the processes did not find each other ({error})'
            ) from error
        finally:
            late.cancel()


def _part(peers: rendezvous.Peers) -> None:
    """At the end: the others are watched until process 0, which writes the report, is done too."""
    jax.distributed.shutdown()
    peers.close()
