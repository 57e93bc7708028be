"""All documents of the explorer by their addresses: what a server computes and an export writes."""

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.verdicts import Verdict
from influence_jax.estimators.ensemble import Problem
from influence_jax.explorer import encoding, records, structure, table, views
from influence_jax.explorer.columns import Column, WholeColumns, measured, member_losses
from influence_jax.explorer.comparison import compare_document
from influence_jax.explorer.entries import Entries, StoredEntries
from influence_jax.explorer.opened import Opened, borrow
from influence_jax.explorer.settings import differing_settings
from influence_jax.explorer.tokens import described, target_tokens
from influence_jax.report.tokens import TokenResults
from influence_jax.resources import return_memory
from influence_jax.store import Manifest, RunError
from influence_jax.text import clean

VERSION = 1
"""Of the documents."""

DAMAGES = (ValueError, OSError, RunError, MemoryError)
"""Errors of one document that leave the others as they are."""

_VIEWS = 'pairs', 'membership', 'clusters', 'matrix', 'convergence', 'leaderboard'
_COMPARE = 'compare.json'
_ENTRY = re.compile(r'(\d{1,4})/entry/(\d{1,9})/(\d{1,9})\.json')
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
        self._lock = threading.RLock()
        results = opened.results
        self._board = views.leaderboard_file(opened.run)
        self._has_images = opened.images_shape is not None
        documents: dict[str, Callable[[], Any] | None] = {
            'run': self.description,
            'targets': lambda: table.targets_document(results),
            'examples': lambda: table.examples_document(results),
            'matrix': self._matrix,
            'pairs': lambda: views.pairs_document(results),
            'clusters': None,
            'convergence': None,
            'membership': None,
            'leaderboard': None,
        }
        if (results.overview.target_examples >= 0).any():
            documents['clusters'] = self._cluster_graphs
        if results.overview.convergence is not None and results.summary.members_used:
            documents['convergence'] = lambda: views.convergence_document(results)
        if results.membership is not None:
            documents['membership'] = lambda: views.membership_document(results)
        if (board := self._board) is not None:
            documents['leaderboard'] = lambda: views.leaderboard_document(board)
        self._single = {name: made for name, made in documents.items() if made is not None}
        self._numbered: dict[str, tuple[int, Callable[[int], Any]]] = {
            'targets': (-(-results.num_targets // shard), self._targets),
            'examples': (-(-results.num_examples // shard), self._examples),
        }
        self._sheets = -(-results.num_examples // records.PER_SHEET) if self._has_images else 0

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
            ValueError, OSError, RunError: what it is made of is damaged.
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

    def entry(self, target: int, example: int) -> dict[str, Any]:
        """Returns one entry of the matrix, its row null where it is neither stored nor estimated.

        Raises:
            UnknownAddress: there is no such target or example.
        """
        if not (target < self.results.num_targets and example < self.results.num_examples):
            raise UnknownAddress(f'entry/{target}/{example}.json')
        entries, (whole, _) = self._ready('_entries').column(target), self._ready('_whole')
        if whole is not None:
            (column,) = whole.columns(np.array([target]))
            entries = column.entries(entries)
        rows = Entries(*(part[entries.positions == example] for part in entries)).rows()
        return {'target': target, 'example': example, 'row': rows[0] if rows else None}

    def entries_at(
        self, examples: Int[np.ndarray, ' n'], targets: Int[np.ndarray, ' n']
    ) -> Float[np.ndarray, '2 n']:
        """Returns values and errors of entries: stored, estimated again, or NaN."""
        found = self._ready('_entries').at(examples, targets)
        whole, _ = self._ready('_whole')
        unknown = np.flatnonzero(np.isnan(found[0]))
        if whole is not None and unknown.size:
            found[:, unknown] = whole.at(examples[unknown], targets[unknown])
        return found

    def member_digests(self) -> Int[np.ndarray, 'M 2'] | None:
        """Returns which members the results are of; None where that is not known."""
        with contextlib.suppress(*DAMAGES):  # the comparison of what is stored needs none
            return self.opened.member_digests
        return None

    def manifest(self) -> Manifest | None:
        """Returns what the run is; None of a report alone, or where it is damaged."""
        with contextlib.suppress(*DAMAGES):
            run = self.opened.opened_run
            return None if run is None else run.manifest
        return None

    def warm(self) -> None:
        """Prepares what the pages of targets and examples need, so that the first is quick too."""
        with contextlib.suppress(*DAMAGES):
            self._targets(0)
            self._examples(0)

    def description(self) -> dict[str, Any]:
        """Returns `run.json`: what the run is, and what there is of it."""
        results, (kept, _) = self.results, self._ready('_tokens')
        return {
            'title': encoding.name(results.title),
            'unit': encoding.name(results.unit),
            'noun': results.shown.noun,
            'method': {
                'name': encoding.name(results.method.name),
                'title': encoding.name(results.method.title),
                'description': encoding.prose(results.method.description),
            },
            'members': results.summary.members_used,
            'examples': results.num_examples,
            'targets': results.num_targets,
            'shard': self._shard,
            'thumbnails': records.thumbnails(self.opened.images_shape),
            'quantities': table.described(results),
            'verdicts': table.verdict_names(),
            'caveats': table.caveats(results),
            'notes': [encoding.prose(text) for text in results.notes],
            'facts': [
                [encoding.name(name), encoding.prose(text)] for name, text in results.facts.items()
            ],
            'classes': [encoding.name(text) for text in table.classes(results)],
            'has': {
                'distribution': self.opened.has_tensors,
                'losses': self.opened.has_tensors,
                'entry': self._shard == 1,  # an export cannot hold a file an entry
                **{name: name in self._single for name in _VIEWS},
                'attribution': [encoding.name(one.method.title) for one in results.attributed],
            },
            'tokens': None if kept is None else described(kept),
            'table_columns': [encoding.name(text) for text in self.opened.columns] or None,
            'z_threshold': encoding.number(results.overview.z_threshold),
        }

    @functools.cached_property
    def _entries(self) -> StoredEntries:
        return StoredEntries(self.results.summary)

    @functools.cached_property
    def _target_of(self) -> Int[np.ndarray, ' N']:
        return table.targets_of_examples(self.results)

    @functools.cached_property
    def _clusters(self) -> structure.Clusters:
        return structure.Clusters(self.results, self.results.verdicts)

    @functools.cached_property
    def _measured(self) -> tuple[Problem | None, str | None]:
        """Members and their losses, or why there are none though they are kept."""
        if not self.opened.has_tensors:
            return None, None
        try:
            return measured(self.opened.tensors(), self.results), None
        except DAMAGES as error:
            return None, clean(str(error) or type(error).__name__)

    @functools.cached_property
    def _whole(self) -> tuple[WholeColumns | None, str | None]:
        """Whole columns, or why there are none though members are known."""
        of, note = self._measured
        if of is None:
            return None, note
        try:
            return WholeColumns(of, self.results), None
        except DAMAGES as error:
            return None, clean(str(error) or type(error).__name__)

    @functools.cached_property
    def _tokens(self) -> tuple[TokenResults | None, str | None]:
        """Losses and scores of tokens, or why there are none though they are kept."""
        try:
            return self.opened.tokens, None
        except DAMAGES as error:
            return None, clean(str(error) or type(error).__name__)

    def _ready(self, name: str) -> Any:
        """One of the above, computed by one thread alone: it may take seconds and memory."""
        with self._lock:
            is_new = name not in vars(self)
            found = getattr(self, name)
            if is_new:
                return_memory()
            return found

    def _targets(self, number: int) -> list[dict[str, Any]]:
        shard = self._of_shard(number, self.results.num_targets)
        entries, verdict = self._ready('_entries'), self.results.verdicts
        (of, _), (whole, note) = self._ready('_measured'), self._ready('_whole')
        columns: Sequence[Column | None] = [None] * len(shard)
        if whole is not None:
            columns = whole.columns(shard)
        return [
            records.target_document(
                self.results,
                target,
                entries.column(target),
                column,
                None if of is None else member_losses(of, target).document(exact=self._shard == 1),
                tokens=self._tokens_of(target),
                verdict=tuple(Verdict)[verdict[target]],
                note=note,
            )
            for target, column in zip(shard.tolist(), columns, strict=True)
        ]

    def _tokens_of(self, target: int) -> dict[str, Any] | None:
        """Document of a target's tokens, or why there is none; None where none are kept."""
        kept, error = self._ready('_tokens')
        if kept is not None:
            return target_tokens(kept, target)
        return None if error is None else {'error': error}

    def _examples(self, number: int) -> list[dict[str, Any]]:
        shard = self._of_shard(number, self.results.num_examples)
        entries, target_of = self._ready('_entries'), self._ready('_target_of')
        return [
            records.example_document(
                self.results,
                self.opened.shown,
                example,
                entries.row(example),
                target=int(target_of[example]),
                group=self._group(example),
            )
            for example in shard.tolist()
        ]

    def _group(self, example: int) -> Int[np.ndarray, ' g']:
        """The other examples of a known group or, where none is known, of a cluster."""
        groups = None if self.opened.shown is None else self.opened.shown.groups
        if groups is None:
            return self._ready('_clusters').others(example)[: records.MOST_INFLUENCERS]
        others = np.flatnonzero(groups == groups[example])
        return others[others != example][: records.MOST_INFLUENCERS]

    def _of_shard(self, number: int, count: int) -> Int[np.ndarray, ' s']:
        return np.arange(number * self._shard, min((number + 1) * self._shard, count))

    def _cluster_graphs(self) -> dict[str, Any]:
        return self._ready('_clusters').document(self._ready('_entries'), self._ready('_target_of'))

    def _matrix(self) -> dict[str, Any]:
        whole, _ = self._ready('_whole')
        return structure.matrix_document(
            self.results,
            self._ready('_clusters'),
            self._ready('_entries'),
            self._ready('_target_of'),
            None if whole is None else whole.block,
        )


class Site:
    """All documents: those of each run below its number.

    Args:
        opened: results, one or two.
        shard: targets, or examples, of a document.
    """

    def __init__(self, opened: Sequence[Opened], *, shard: int = 1) -> None:
        self.runs = [RunDocuments(one, shard=shard) for one in borrow(opened)]

    def addresses(self) -> Iterator[str]:
        """Yields the addresses of all documents."""
        yield 'index.json'
        if len(self.runs) == 2:
            yield _COMPARE
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
        if address == _COMPARE and len(self.runs) == 2:
            return encoding.dump(self._comparison())
        if (entry := _ENTRY.fullmatch(address)) and int(entry[1]) < len(self.runs):
            return encoding.dump(self.runs[int(entry[1])].entry(int(entry[2]), int(entry[3])))
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match[1]) >= len(self.runs):
            raise UnknownAddress(address)
        number = None if match[3] is None else int(match[3])
        return self.runs[int(match[1])].get(match[2], number, match[4])

    def _comparison(self) -> dict[str, Any]:
        first, second = self.runs
        return compare_document(
            first.results,
            second.results,
            members=(first.member_digests(), second.member_digests()),
            entries=(first.entries_at, second.entries_at),
            differences=differing_settings(first.manifest(), second.manifest()),
        )

    def warm(self) -> None:
        """Prepares what the pages of all runs need; raises nothing that a document would."""
        for run in self.runs:
            run.warm()

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
            'compared': len(self.runs) == 2,
        }
