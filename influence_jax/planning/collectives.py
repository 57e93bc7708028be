"""Which devices talk to which in a compiled program, read from its text."""

import itertools
import math
import re
from typing import NamedTuple

import numpy as np

# A send or a receive names its pairs among its frontend attributes, in quotes or without.
_FIELD = re.compile(r'\b(replica_groups|(?:_xla_send_recv_)?source_target_pairs)="?')
_EXPLICIT = re.compile(r'\{(\{[\d,]*\}(?:,\{[\d,]*\})*)?\}')
_IOTA = re.compile(r'\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(r'mesh\[([^\]]*)\] \{([^}]*)\}')
_SIZE = re.compile(r"'([^']+)'=(\d+)")
_PLAIN_AXIS = re.compile(r"'([^']+)'")


class Collectives(NamedTuple):
    """Instructions that make devices talk to each other.

    total: how many.
    crossing: those that join devices of different members.
    unread: those whose groups are written in a way that is not known here.
    """

    total: int
    crossing: int
    unread: int


def read(text: str, *, devices: int, devices_per_member: int) -> Collectives:
    """Counts the collectives of a program, and those that cross members.

    Args:
        text: of the compiled program.
        devices: how many it runs on.
        devices_per_member: consecutive devices of the mesh that train the same members.
    """
    found = [
        (groups if match[1] == 'replica_groups' else pairs)(line[match.end() :], devices)
        for line, match in _lines(text)
    ]
    known = [partition for partition in found if partition is not None]
    crossing = sum(
        any(len({device // devices_per_member for device in group}) > 1 for group in partition)
        for partition in known
    )
    return Collectives(len(found), crossing, len(found) - len(known))


def groups(text: str, devices: int) -> list[tuple[int, ...]] | None:
    """Groups of devices as XLA writes them, in any of three notations.

    None if in none of these, or if they do not hold every device exactly once: then their numbers
    are not those of devices (but of replicas, say).

    `{{0,1},{2,3}}` lists them (`{}`: all in one); `[2,2]<=[2,2]T(1,0)` counts devices, reshapes,
    transposes and cuts into rows; `mesh['a'=2,'b'=2] {'b'}` names the axes that are joined.

    Args:
        text: begins with the groups, and goes on with something else.
        devices: how many there are in all.
    """
    if match := _EXPLICIT.match(text):
        if not match[1]:
            return [tuple(range(devices))]
        return _partition(_listed(match[1]), devices)
    if match := _IOTA.match(text):
        return _counted(*(_integers(part or '') for part in match.groups()), devices=devices)
    if match := _MESH.match(text):
        return _over_axes(match[1], match[2], devices)
    return None


def pairs(text: str, devices: int) -> list[tuple[int, ...]] | None:
    """Who sends to whom, as in `{{0,1},{1,2}}`; None if it is written in another way.

    Args:
        text: begins with the pairs, and goes on with something else.
        devices: how many there are in all.
    """
    match = _EXPLICIT.match(text)
    if not match:
        return None
    found = _listed(match[1] or '')
    known = all(len(pair) == 2 and max(pair) < devices for pair in found)
    return found if known else None


def _listed(text: str) -> list[tuple[int, ...]]:
    return [_integers(group) for group in re.findall(r'\{([\d,]*)\}', text)]


def _partition(found: list[tuple[int, ...]], devices: int) -> list[tuple[int, ...]] | None:
    each_once = sorted(itertools.chain(*found)) == list(range(devices))
    return found if each_once else None


def _counted(
    cut: tuple[int, ...], sizes: tuple[int, ...], order: tuple[int, ...], *, devices: int
) -> list[tuple[int, ...]] | None:
    order = order or tuple(range(len(sizes)))
    if len(cut) != 2 or sorted(order) != list(range(len(sizes))):
        return None
    if math.prod(sizes) != devices or math.prod(cut) != devices:
        return None
    grid = np.arange(devices).reshape(sizes).transpose(order)
    return [tuple(row) for row in grid.reshape(cut).tolist()]


def _over_axes(sizes: str, joined: str, devices: int) -> list[tuple[int, ...]] | None:
    axes = {name: int(size) for name, size in _SIZE.findall(sizes)}
    names = [part.strip() for part in joined.split(',')]
    plain = [match[1] for name in names if (match := _PLAIN_AXIS.fullmatch(name))]
    if len(plain) != len(names) or not set(plain) <= axes.keys():
        return None  # a part of an axis
    if math.prod(axes.values()) != devices:
        return None
    order = list(axes)
    apart = [name for name in order if name not in plain]
    grid = np.arange(devices).reshape(list(axes.values()))
    grid = grid.transpose([order.index(name) for name in (*apart, *plain)])
    width = math.prod(axes[name] for name in plain)
    return [tuple(row) for row in grid.reshape(-1, width).tolist()]


def _lines(text: str) -> list[tuple[str, re.Match]]:
    return [(line, match) for line in text.splitlines() if (match := _FIELD.search(line))]


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(',') if part)
