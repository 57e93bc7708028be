"""Columns and entries of influence matrices on a CPU with AVX-512: `columns.cc`, `entries.cc`.

What is computed, and in which terms, `influence_jax.estimators.scan` says.
"""

import ctypes
import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16

from influence_jax.kernels import library
from influence_jax.kernels.calls import (
    DOUBLE,
    DOUBLES,
    FLOATS,
    INT,
    INTS,
    ROWS_OF_FLOATS,
    STRUCTURE,
    Function,
    Work,
)
from influence_jax.threads import in_threads

# As sums.h, columns.cc and entries.cc have them.
_BLOCK = 128
_OF_LOOKUPS, _WORDS = 12, 21
_OF_TILES, _SIDE = 64, 16
_OF_ENTRIES = 16
_BINS = 1024
_PACKED = 2**11  # examples at once

_ANSWERS = (INT, INTS, INT, INTS, INTS, DOUBLES, FLOATS)
_READ = Function(
    'columns.cc',
    'columns_read',
    (STRUCTURE, FLOATS, FLOATS, INTS, FLOATS, INT, FLOATS, FLOATS, INTS, *_ANSWERS),
    of_call=(INTS, INTS),
)
_OF_VALUES = Function(
    'columns.cc',
    'columns_of_values',
    (INT, ROWS_OF_FLOATS, INT, FLOATS, INTS, INTS, *_ANSWERS),
    of_call=(INTS,),
)
_STRONGEST = Function(
    'columns.cc', 'columns_strongest', (STRUCTURE, FLOATS, FLOATS, INTS, INT, INT, INTS)
)
_SUMS = Function('entries.cc', 'entries_sums', (STRUCTURE, INT, INT, INTS, INTS, DOUBLES))
_MOMENTS = Function('entries.cc', 'entries_moments', (STRUCTURE, INTS, DOUBLES))
_P_VALUES = Function(
    'entries.cc', 'entries_p_values', (STRUCTURE, INTS, INTS, FLOATS, DOUBLE, DOUBLES)
)


class Ensemble(ctypes.Structure):
    """Masks and losses as members.h has them; keeps its arrays."""

    _fields_ = (
        ('bits', ctypes.c_void_p),
        ('words', ctypes.c_int64),
        ('first_words', ctypes.c_int64),
        ('examples', ctypes.c_int64),
        ('slots', ctypes.c_int64),
        ('order', ctypes.c_void_p),
        ('losses', ctypes.c_void_p),
        ('members', ctypes.c_int64),
        ('targets', ctypes.c_int64),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Bits:
    """Masks as bits.

    Attributes:
      bits: words of all examples, as the kernels want them.
      halves: members of the words' bits, of even and of odd number; -1 for none.
      examples: N.
    """

    bits: UInt16[np.ndarray, '...']
    halves: tuple[Int[np.ndarray, '_ B'], Int[np.ndarray, '_ B']]
    examples: int

    def of(self, losses: Float[np.ndarray, 'M t']) -> Ensemble:
        """With the losses, best in Fortran's order.

        Raises:
          TypeError: losses that are not float32.
        """
        if losses.dtype != np.float32:
            raise TypeError(f'losses must be float32, not {losses.dtype}')
        first, other = map(len, self.halves)
        order = np.concatenate(self.halves).ravel()
        sizes = first + other, first, self.examples, order.size
        by_target = np.ascontiguousarray(losses.T)
        ensemble = Ensemble(
            _address(self.bits), *sizes, _address(order), _address(by_target), *losses.shape
        )
        ensemble.kept = self.bits, order, by_target
        return ensemble


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
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
    def empty(cls, targets: int, *, strongest: int, ranks: int) -> 'Answers':
        """Arrays of these sizes."""
        top = np.empty((targets, strongest), np.int64)
        return cls(
            top, np.empty_like(top), np.empty((targets, 4)), np.empty((targets, ranks), np.float32)
        )


class Masks:
    """The masks of an ensemble as bits."""

    def __init__(
        self, masks: Bool[np.ndarray, 'M N'], columns: ctypes.CDLL, entries: ctypes.CDLL
    ) -> None:
        self._columns, self._entries = columns, entries
        self.examples = masks.shape[1]
        by_tiles = columns.columns_by_tiles()
        self._by_word = _bits_of_tiles(masks) if by_tiles else _bits_of_lookups(masks)
        self._by_example = _bits_by_example(masks)

    @classmethod
    def of(cls, masks: Bool[np.ndarray, 'M N']) -> 'Masks | None':
        """None where there is no compiler or the CPU lacks AVX-512: see `library.loaded`."""
        columns, entries = (library.loaded(source) for source in ('columns.cc', 'entries.cc'))
        return None if columns is None or entries is None else cls(masks, columns, entries)

    def by_word(self, losses: Float[np.ndarray, 'M t']) -> Ensemble:
        """With losses, as functions read them that sum over all members."""
        return self._by_word.of(losses)

    def columns(
        self,
        losses: Float[np.ndarray, 'M t'],
        answers: Answers,
        *,
        of_inside: Float[np.ndarray, ' N'],
        of_total: Float[np.ndarray, ' N'],
        fixed_examples: Int[np.ndarray, 't F'],
        fixed_values: Float[np.ndarray, 't F'],
        per_unit: Float[np.ndarray, ' t'],
        floor: Float[np.ndarray, ' t'],
        self_index: Int[np.ndarray, ' t'],
        ranks: Int[np.ndarray, ' R'],
    ) -> Callable[[slice], tuple[Int[np.ndarray, ' C'], Int[np.ndarray, ' E']]]:
        """Reads the columns of some targets of a block into their rows of `answers`.

        An entry is (sum of the losses with the example) * of_inside + (sum of all) * of_total.
        Arrays of targets are contiguous and of the whole block, float32 or int64.

        Returns:
          A function of which targets. It returns the entries whose absolute value is above the
          floor, as target * N + example, and how many entries each bin of the histogram has, own
          ones not counted.
        """
        read = _READ.bound(
            self.by_word(losses),
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
            of=self._columns,
        )

        def of_targets(some: slice) -> tuple[Int[np.ndarray, ' C'], Int[np.ndarray, ' E']]:
            histogram = np.zeros(_BINS, np.int64)
            listed = np.empty((some.stop - some.start) * self.examples, np.int64)
            count = read(some, histogram, listed)
            return listed[:count].copy(), histogram

        return of_targets

    def strongest(
        self,
        losses: Float[np.ndarray, 'M t'],
        examples: Int[np.ndarray, 'P t K'],
        *,
        of_inside: Float[np.ndarray, '3 N'],
        of_total: Float[np.ndarray, '3 N'],
        self_index: Int[np.ndarray, ' t'],
    ) -> Work:
        """The examples of largest |entry| of some targets, own ones before all others.

        By the members of even number, by those of odd number and, of three parts, by all. Losses
        are rounded to 16 bits of the largest sum of 252 members: of an entry, 0.001 standard
        errors or so.
        """
        parts, _, count = examples.shape
        of = self.by_word(losses), of_inside, of_total, self_index, count, parts, examples
        return _STRONGEST.bound(*of, of=self._columns)

    def sums(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        sums: Float[np.ndarray, 'C 2'],
        *,
        half: int | None = None,
    ) -> Work:
        """Sums of losses, and of their squares, of the members that have an example, in float64.

        Of the members of even number (half 0), of odd number (1), or of all.

        Args:
          losses: float32.
          targets: int64; fastest where equal ones follow one another.
          examples: int64.
          sums: to be filled.
          half: of which members.
        """
        first, other = map(len, self._by_example.halves)
        words = (first, first + other) if half == 1 else (0, first if half == 0 else first + other)
        ensemble = self._by_example.of(losses)
        return _SUMS.bound(ensemble, *words, targets, examples, sums, of=self._entries)

    def moments(
        self,
        losses: Float[np.ndarray, 'M t'],
        examples: Int[np.ndarray, ' t'],
        moments: Float[np.ndarray, 't 2 2 5'],
    ) -> Work:
        """Count, mean, and sums of the second to fourth powers about it, of some targets' losses.

        Of members of even and of odd number, without an example and with it; 0 of nobody.

        Args:
          losses: float32.
          examples: int64, of each target; -1 for one that nobody has.
          moments: to be filled.
        """
        return _MOMENTS.bound(self._by_example.of(losses), examples, moments, of=self._entries)

    def p_values(
        self,
        losses: Float[np.ndarray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        p_values: Float[np.ndarray, ' C'],
        *,
        taken: Float[np.ndarray, ' C'],
        sure: float,
    ) -> Work:
        """Two-sided p-values of some entries by the randomness of the masks.

        NaN where the losses have two values, which is another test.

        Args:
          losses: float32.
          targets: int64; fastest where equal ones follow one another.
          examples: int64.
          p_values: to be filled.
          taken: float32, what is first subtracted from the losses of members with the example.
          sure: a p-value that is certainly no larger may be an upper bound.
        """
        of = self._by_example.of(losses), targets, examples, taken, sure, p_values
        return _P_VALUES.bound(*of, of=self._entries)


def columns_of_values(
    values: Float[np.ndarray, 'N t'],
    answers: Answers,
    *,
    per_unit: Float[np.ndarray, ' t'],
    self_index: Int[np.ndarray, ' t'],
    counted: Int[np.ndarray, ' t'],
    ranks: Int[np.ndarray, ' R'],
) -> Callable[[slice], Int[np.ndarray, ' E']] | None:
    """Reads columns that are there into `answers`; None where that is left to numpy.

    Args:
      values: contiguous rows, or some columns of such; float32.
      answers: to be filled.
      per_unit: what entries are multiplied by for moments and histogram.
      self_index: own examples, which the histogram leaves out.
      counted: 0 for columns that it leaves out.
      ranks: as in `Masks.columns`.

    Returns:
      A function of which targets, that returns the histogram.
    """
    if not _OF_VALUES.there():
        return None
    if values.dtype != np.float32 or values.strides[1] != 4:
        raise TypeError(f'values must be rows of float32, not {values.dtype} {values.strides}')
    read = _OF_VALUES.bound(
        len(values),
        values,
        values.strides[0] // 4,
        per_unit,
        self_index,
        counted,
        answers.top.shape[1],
        ranks,
        len(ranks),
        answers.top,
        answers.bottom,
        answers.moments,
        answers.ranked,
    )

    def of_targets(some: slice) -> Int[np.ndarray, ' E']:
        histogram = np.zeros(_BINS, np.int64)
        read(some, histogram)
        return histogram

    return of_targets


def _bits_of_lookups(masks: Bool[np.ndarray, 'M N']) -> _Bits:
    """As `Lookups` of sums.h wants them."""
    members, examples = masks.shape
    halves = _halves(members, _OF_LOOKUPS)
    filled = _filled(examples)
    bits = np.zeros(sum(map(len, halves)) * filled, np.uint16)
    place = 0
    for half in halves:
        for start in range(0, len(half), _WORDS):
            piece = half[start : start + _WORDS]
            words = np.zeros((len(piece), filled), np.uint16)
            words[:, :examples] = _packed(masks, piece)
            blocks = words.reshape(len(piece), -1, _BLOCK).swapaxes(0, 1)
            bits[place : place + words.size].reshape(blocks.shape)[:] = blocks
            place += words.size
    return _Bits(bits, halves, examples)


def _bits_of_tiles(masks: Bool[np.ndarray, 'M N']) -> _Bits:
    """As `Products` of sums.h wants them."""
    examples = masks.shape[1]
    halves = _halves(len(masks), _OF_TILES)
    words = np.concatenate(halves)
    fours = words.reshape(len(words), -1, 4)
    bits = np.zeros((_filled(examples) // _SIDE, *fours.shape), np.uint16)

    def of_some(some: slice) -> None:
        included = np.zeros((*words.shape, _SIDE * (some.stop - some.start)), bool)
        known = masks[words, some.start * _SIDE : some.stop * _SIDE]
        included[..., : known.shape[2]] = known
        included[words < 0] = False
        by_side = included.reshape(*fours.shape, -1, _SIDE).transpose(3, 0, 1, 4, 2)
        packed = np.packbits(by_side.reshape(-1, 64), axis=1, bitorder='little')
        bits[some] = packed.view(np.uint16).reshape(bits[some].shape)

    in_threads(of_some, len(bits), step=_PACKED // _SIDE)
    return _Bits(bits, halves, examples)


def _bits_by_example(masks: Bool[np.ndarray, 'M N']) -> _Bits:
    """As entries.cc wants them."""
    halves = _halves(len(masks), _OF_ENTRIES)
    bits = np.empty((masks.shape[1], sum(map(len, halves))), np.uint16)
    bits[:, : len(halves[0])], bits[:, len(halves[0]) :] = (
        _packed(masks, half).T for half in halves
    )
    return _Bits(bits, halves, masks.shape[1])


def _filled(examples: int) -> int:
    """So many examples, and what fills the last block."""
    return -(-examples // _BLOCK) * _BLOCK


def _halves(members: int, a_word: int) -> tuple[Int[np.ndarray, '_ B'], Int[np.ndarray, '_ B']]:
    """The members of each word's bits, -1 for none; of even and of odd number."""
    several = []
    for half in (0, 1):
        of_half = np.arange(half, members, 2)
        filling = -len(of_half) % a_word
        several.append(np.pad(of_half, (0, filling), constant_values=-1).reshape(-1, a_word))
    return several[0], several[1]


def _packed(
    masks: Bool[np.ndarray, 'M N'], members: Int[np.ndarray, 'w B']
) -> UInt16[np.ndarray, 'w N']:
    """Words of which each bit is a member."""
    words = np.empty((len(members), masks.shape[1]), np.uint16)

    def of_some(some: slice) -> None:
        included = masks[members, some]
        included[members < 0] = False
        low, high = np.packbits(included, axis=1, bitorder='little').swapaxes(0, 1)
        words[:, some] = low | high.astype(np.uint16) << 8

    # By pieces: copies of all would be as large as the masks.
    in_threads(of_some, masks.shape[1], step=_PACKED)
    return words


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
