"""All documents of the explorer by their addresses: what a server computes and an export writes."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from influence_jax.explorer import encoding, records, table
from influence_jax.explorer.entries import StoredEntries
from influence_jax.explorer.opened import Opened
from influence_jax.explorer.verdicts import verdicts

VERSION = 1
"""Of the documents."""

_ADDRESS = re.compile(r'(\d{1,4})/([a-z]+)(?:/(\d{1,9}))?\.(json|png)')


class UnknownAddress(LookupError):
    """There is no document of this address."""


class RunDocuments:
    """The documents of one run, computed when asked for.

    Args:
        opened: its results.
        shard: targets, or examples, of a document.
    """

    def __init__(self, opened: Opened, *, shard: int) -> None:
        self.opened, self.results, self._shard = opened, opened.results, shard
        self._single: dict[str, Callable[[], Any]] = {
            'run': self.description,
            'targets': lambda: table.targets_document(self.results),
            'examples': lambda: table.examples_document(self.results),
        }
        self._numbered: dict[str, tuple[int, Callable[[int], Any]]] = {
            'targets': (self._count(self.results.num_targets, shard), self.targets),
            'examples': (self._count(self.results.num_examples, shard), self.examples),
        }
        self._sheets = 0
        if records.thumbnails(self.results, opened.shown) is not None:
            self._sheets = self._count(self.results.num_examples, records.PER_SHEET)

    @staticmethod
    def _count(things: int, a_document: int) -> int:
        return -(-things // a_document)

    def addresses(self) -> Iterator[str]:
        """Yields the addresses of all documents, relative to the run's."""
        for name in self._single:
            yield f'{name}.json'
        for name, (count, _) in self._numbered.items():
            yield from (f'{name}/{number}.json' for number in range(count))
        yield from (f'sheets/{number}.png' for number in range(self._sheets))

    def get(self, name: str, number: int | None, kind: str) -> bytes:
        """Returns a document.

        Raises:
            UnknownAddress: there is none of that name, number and kind.
        """
        if kind == 'png' and name == 'sheets' and number is not None and number < self._sheets:
            return records.sheet(self.results, self.opened.shown, number)
        if kind == 'json' and number is None and name in self._single:
            return encoding.dump(self._single[name]())
        if kind == 'json' and number is not None and name in self._numbered:
            count, document = self._numbered[name]
            if number < count:
                return encoding.dump(document(number))
        raise UnknownAddress(f'{name}/{number}.{kind}')

    def description(self) -> dict[str, Any]:
        """Returns `run.json`: what the run is, and what there is of it."""
        results, summary = self.results, self.results.summary
        shown = self.opened.shown
        columns = shown.columns if shown is not None else results.shown.columns
        return {
            'title': encoding.name(results.title),
            'unit': encoding.name(results.unit),
            'noun': results.shown.noun,
            'method': {
                'name': encoding.name(results.method.name),
                'title': encoding.name(results.method.title),
                'description': encoding.prose(results.method.description),
            },
            'members': summary.members_used,
            'examples': results.num_examples,
            'targets': results.num_targets,
            'shard': self._shard,
            'thumbnails': records.thumbnails(results, shown),
            'quantities': table.described(results),
            'verdicts': table.verdict_names(),
            'caveats': [],
            'notes': [encoding.prose(text) for text in results.notes],
            'facts': [
                [encoding.name(name), encoding.prose(text)] for name, text in results.facts.items()
            ],
            'classes': [encoding.name(text) for text in table.classes(results)],
            'has': {
                'distribution': False,
                'losses': False,
                'membership': False,
                'clusters': False,
                'matrix': False,
                'convergence': False,
                'leaderboard': False,
                'attribution': [encoding.name(one.method.title) for one in results.attributed],
            },
            'table_columns': [encoding.name(text) for text in columns] or None,
            'z_threshold': encoding.number(results.overview.z_threshold),
        }

    @functools.cached_property
    def entries(self) -> StoredEntries:
        """The stored entries of the matrix."""
        return StoredEntries(self.results.summary)

    @functools.cached_property
    def _verdicts(self) -> np.ndarray:
        results = self.results
        return verdicts(results.summary, results.overview.target_examples, results.mean_loss)

    @functools.cached_property
    def _target_of(self) -> np.ndarray:
        return table.targets_of_examples(self.results)

    def targets(self, number: int) -> list[dict[str, Any]]:
        """Returns the documents of a shard of targets."""
        return [self.target(one) for one in self._of_shard(number, self.results.num_targets)]

    def examples(self, number: int) -> list[dict[str, Any]]:
        """Returns the documents of a shard of examples."""
        return [self.example(one) for one in self._of_shard(number, self.results.num_examples)]

    def _of_shard(self, number: int, count: int) -> range:
        return range(number * self._shard, min((number + 1) * self._shard, count))

    def target(self, target: int) -> dict[str, Any]:
        """Returns the document of a target."""
        return records.target_document(
            self.results,
            target,
            self.entries.column(target),
            verdict=int(self._verdicts[target]),
        )

    def example(self, example: int) -> dict[str, Any]:
        """Returns the document of an example."""
        return records.example_document(
            self.results,
            self.opened.shown,
            example,
            self.entries.row(example),
            target=int(self._target_of[example]),
            group=np.empty(0, int),
        )


class Site:
    """All documents: those of each run below its number.

    Args:
        opened: results, one or two.
        shard: targets, or examples, of a document.
    """

    def __init__(self, opened: Sequence[Opened], *, shard: int = 1) -> None:
        self.runs = [RunDocuments(one, shard=shard) for one in opened]
        self.checksum = '-'.join(one.checksum for one in opened)

    def addresses(self) -> Iterator[str]:
        """Yields the addresses of all documents."""
        yield 'index.json'
        for place, run in enumerate(self.runs):
            yield from (f'{place}/{address}' for address in run.addresses())

    def get(self, address: str) -> bytes:
        """Returns the document of an address.

        Raises:
            UnknownAddress: there is none.
            ValueError, OSError, RunError: what it is made of is damaged.
        """
        if address == 'index.json':
            return encoding.dump(self.index())
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match[1]) >= len(self.runs):
            raise UnknownAddress(address)
        number = None if match[3] is None else int(match[3])
        return self.runs[int(match[1])].get(match[2], number, match[4])

    def index(self) -> dict[str, Any]:
        """Returns `index.json`: which runs there are."""
        return {
            'version': VERSION,
            'runs': [
                {
                    'name': encoding.name(run.opened.name),
                    'title': encoding.name(run.results.title),
                }
                for run in self.runs
            ],
            'compared': len(self.runs) > 1,
        }
