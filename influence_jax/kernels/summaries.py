"""Columns and entries of influence matrices on a CPU with AVX-512: `columns.cc`, `entries.cc`.

What is computed, and in which terms, `influence_jax.estimators.scan` says.
"""

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16

from influence_jax.kernels import library

# As members.h and columns.cc have them.
_BLOCK = 128
_MEMBERS = 15
_WORDS = 17
_BINS = 1024
_PACKED = 2**13  # examples at once

_INT = ctypes.c_int64
_FLOATS, _DOUBLES, _INTS, _WORDS_OF = (
    np.ctypeslib.ndpointer(dtype, flags='C_CONTIGUOUS')
    for dtype in (np.float32, np.float64, np.int64, np.uint16)
)


class _Ensemble(ctypes.Structure):
    _fields_ = (
        ('bits', ctypes.c_void_p),
        ('words', ctypes.c_int64),
        ('first_words', ctypes.c_int64),
        ('examples', ctypes.c_int64),
        ('order', ctypes.c_void_p),
        ('losses', ctypes.c_void_p),
        ('stride', ctypes.c_int64),
    )


@dataclasses.dataclass(frozen=True)
class Columns:
    """Answers of `Masks.columns`, to be filled; of all targets of a block.

    top: `[t K]` examples of largest value, largest first.
    bottom: `[t K]` examples of least value, least first.
    moments: `[t 4]` means of the entries' first four powers, each entry times `per_unit` before.
    ranked: `[t R]` values of the entries of the ranks asked for.
    """

    top: Int[np.ndarray, 't K']
    bottom: Int[np.ndarray, 't K']
    moments: Float[np.ndarray, 't 4']
    ranked: Float[np.ndarray, 't R']

    @classmethod
    def empty(cls, targets: int, *, strongest: int, ranks: int) -> 'Columns':
        """Arrays of these sizes."""
        top = np.empty((targets, strongest), np.int64)
        return cls(
            top, np.empty_like(top), np.empty((targets, 4)), np.empty((targets, ranks), np.float32)
        )


class Masks:
    """The masks of an ensemble as bits.

    Members come in two halves, of even and of odd number, in words of 15 bits.
    """

    def __init__(
        self, masks: Bool[np.ndarray, 'M N'], columns: ctypes.CDLL, entries: ctypes.CDLL
    ) -> None:
        self._read = _declared(
            columns.columns_read,
            *(_INT, _INT, _FLOATS, _FLOATS, _INTS, _FLOATS, _INT, _FLOATS, _FLOATS, _INTS),
            *(_INT, _INTS, _INT, _INTS, _INTS, _DOUBLES, _FLOATS, _INTS, _INTS),
        )
        self._strongest = _declared(
            columns.columns_strongest,
            *(_INT, _INT, _FLOATS, _FLOATS, _INTS, _INT, _INT, _INTS),
        )
        self._entry_sums = _declared(
            entries.entries_sums, *(_WORDS_OF, _INT, _INT, _INT, _INTS, _INTS, _DOUBLES)
        )
        self._moments = _declared(
            entries.entries_moments, *(_WORDS_OF, _INT, _INT, _INTS, _DOUBLES)
        )
        self._entry_p_values = _declared(
            entries.entries_p_values,
            *(_WORDS_OF, _INT, _INTS, _INTS, _FLOATS, ctypes.c_double, _DOUBLES),
        )
        members, self.examples = masks.shape
        halves = [_in_words(np.arange(members)[half::2]) for half in (0, 1)]
        self._order = np.concatenate(halves).ravel()
        self._words, self._first_words = sum(map(len, halves)), len(halves[0])
        filled = -(-self.examples // _BLOCK) * _BLOCK
        self._bits = np.zeros(self._words * filled, np.uint16)
        self._by_example = np.empty((self.examples, self._words), np.uint16)
        word = 0
        for order in _pieces(halves):
            words, stop = np.zeros((len(order), filled), np.uint16), word + len(order)
            # By pieces: copies of all would be as large as the masks.
            for start in range(0, self.examples, _PACKED):
                some = slice(start, min(start + _PACKED, self.examples))
                words[:, some] = _packed(masks[:, some], order)
            blocks = words.reshape(len(order), -1, _BLOCK).swapaxes(0, 1)
            self._bits[word * filled : stop * filled].reshape(blocks.shape)[:] = blocks
            self._by_example[:, word:stop] = words[:, : self.examples].T
            word = stop

    @classmethod
    def of(cls, masks: Bool[np.ndarray, 'M N']) -> 'Masks | None':
        """None where there is no compiler or the CPU lacks AVX-512: see `library.loaded`."""
        columns, entries = (library.loaded(source) for source in ('columns.cc', 'entries.cc'))
        return None if columns is None or entries is None else cls(masks, columns, entries)

    def columns(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: slice,
        answers: Columns,
        *,
        of_inside: Float[np.ndarray, ' N'],
        of_total: Float[np.ndarray, ' N'],
        fixed_examples: Int[np.ndarray, 't F'],
        fixed_values: Float[np.ndarray, 't F'],
        per_unit: Float[np.ndarray, ' t'],
        floor: Float[np.ndarray, ' t'],
        self_index: Int[np.ndarray, ' t'],
        ranks: Int[np.ndarray, ' R'],
    ) -> tuple[Int[np.ndarray, ' C'], Int[np.ndarray, ' E']]:
        """Reads the columns of some targets of a block into their rows of `answers`.

        An entry is (sum of the losses with the example) * of_inside + (sum of all) * of_total.
        Arrays of targets are contiguous and of the whole block, float32 or int64.

        Returns:
          The entries whose absolute value is above the floor, as target * N + example, and how many
          entries each bin of the histogram has, own ones not counted.
        """
        histogram = np.zeros(_BINS, np.int64)
        listed = np.empty((targets.stop - targets.start) * self.examples, np.int64)
        count = self._call(
            self._read,
            losses,
            targets.start,
            targets.stop,
            of_inside,
            of_total,
            fixed_examples,
            fixed_values,
            fixed_examples.shape[1],
            per_unit,
            floor,
            self_index,
            answers.top.shape[1],
            ranks,
            len(ranks),
            answers.top,
            answers.bottom,
            answers.moments,
            answers.ranked,
            histogram,
            listed,
        )
        return listed[:count].copy(), histogram

    def strongest(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: slice,
        examples: Int[np.ndarray, 'P t K'],
        *,
        of_inside: Float[np.ndarray, '3 N'],
        of_total: Float[np.ndarray, '3 N'],
        self_index: Int[np.ndarray, ' t'],
    ) -> None:
        """The examples of largest |entry| of some targets, own ones before all others.

        By the members of even number, by those of odd number and, of three parts, by all. Losses
        are rounded to 16 bits of the largest sum of 255 members: of an entry, 0.001 standard
        errors or so.
        """
        parts, _, count = examples.shape
        self._call(
            self._strongest,
            losses,
            targets.start,
            targets.stop,
            of_inside,
            of_total,
            self_index,
            count,
            parts,
            examples,
        )

    def sums(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        *,
        half: int | None = None,
    ) -> Float[np.ndarray, 'C 2']:
        """Sums of losses, and of their squares, of the members that have an example, in float64.

        Of the members of even number (half 0), of odd number (1), or of all.
        """
        sums = np.empty((len(targets), 2))
        first = self._first_words if half == 1 else 0
        last = self._first_words if half == 0 else self._words
        of = (targets, examples, sums)
        self._call(self._entry_sums, losses, self._by_example, first, last, len(targets), *of)
        return sums

    def moments(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: slice,
        moments: Float[np.ndarray, 't 2 2 5'],
        *,
        examples: Int[np.ndarray, ' t'],
    ) -> None:
        """Count, mean, and sums of the second to fourth powers about it, of some targets' losses.

        Of members of even and of odd number, without an example and with it; 0 of nobody.

        Args:
          losses: of a block of targets.
          targets: some of them.
          moments: to be filled.
          examples: of each target of the block; -1 for one that nobody has.
        """
        of = (targets.start, targets.stop, examples, moments)
        self._call(self._moments, losses, self._by_example, *of)

    def p_values(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        *,
        taken: Float[np.ndarray, ' C'],
        sure: float,
    ) -> Float[np.ndarray, ' C']:
        """Two-sided p-values of entries by the randomness of the masks.

        NaN where the losses have two values, which is another test.

        Args:
          losses: float32.
          targets: int64; fastest where equal ones follow one another.
          examples: int64.
          taken: float32, what is first subtracted from the losses of members with the example.
          sure: a p-value that is certainly no larger may be an upper bound.
        """
        found = np.empty(len(targets))
        of = (targets, examples, taken, sure, found)
        self._call(self._entry_p_values, losses, self._by_example, len(targets), *of)
        return found

    def _call(
        self,
        function: Callable[..., int],
        losses: Float[np.ndarray, 'M t'],
        *arguments: np.ndarray | int | float,
    ) -> int:
        """Calls a function; Python's lock is free meanwhile."""
        ensemble = _Ensemble(
            _address(self._bits),
            self._words,
            self._first_words,
            self.examples,
            _address(self._order),
            _address(losses),
            losses.shape[1],
        )
        found = function(ctypes.byref(ensemble), *arguments)
        if found < 0:
            raise MemoryError(f'no memory for a few columns of {self.examples:,} examples')
        return int(found)


def _in_words(members: Int[np.ndarray, ' m']) -> Int[np.ndarray, 'w 15']:
    """The members of each word's bits, -1 for none."""
    words = -(-len(members) // _MEMBERS)
    order = np.full(words * _MEMBERS, -1)
    order[: len(members)] = members
    return order.reshape(words, _MEMBERS)


def _pieces(halves: list[Int[np.ndarray, '_ 15']]) -> Iterator[Int[np.ndarray, '_ 15']]:
    for half in halves:
        for start in range(0, len(half), _WORDS):
            yield half[start : start + _WORDS]


def _packed(
    masks: Bool[np.ndarray, 'M n'], order: Int[np.ndarray, 'w 15']
) -> UInt16[np.ndarray, 'w n']:
    members = masks[order] & (order >= 0)[..., None]
    low, high = np.packbits(members, axis=1, bitorder='little').swapaxes(0, 1).astype(np.uint16)
    return low | high << 8


def _declared(function: Any, *arguments: Any) -> Callable[..., int]:
    """A function whose arguments are checked: arrays of another type would be read as garbage."""
    function.argtypes = (ctypes.POINTER(_Ensemble), *arguments)
    function.restype = ctypes.c_int64
    return cast(Callable[..., int], function)


def _address(array: np.ndarray) -> ctypes.c_void_p:
    if not array.flags.c_contiguous:
        raise ValueError(f'array {list(array.shape)} must be contiguous')
    return ctypes.c_void_p(array.ctypes.data)
