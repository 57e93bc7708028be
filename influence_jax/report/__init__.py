"""From a run to one self-contained page, its figures, its tables and its stored results.

`write(run)` does it all: `gather` estimates and collects `Results`, `save` stores them and what
`render` makes of them. `Results.load(DIR)` reads them back; `terminal` shows them in short.
Everything is imported on first use: who reads results need not wait for what draws them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from influence_jax.report import figures, leaderboard
    from influence_jax.report.directory import check_directory, render, save, write
    from influence_jax.report.gathering import gather
    from influence_jax.report.kept import KeptTensors
    from influence_jax.report.origin import is_unchanged, origin_of
    from influence_jax.report.results import PublishedRow, PublishedSpread, Reference, Results
    from influence_jax.report.run import ArrayRun, ReportedRun
    from influence_jax.report.sections import Section
    from influence_jax.report.tables import terminal

_NAMES = {
    'ArrayRun': 'run',
    'KeptTensors': 'kept',
    'PublishedRow': 'results',
    'PublishedSpread': 'results',
    'Reference': 'results',
    'ReportedRun': 'run',
    'Results': 'results',
    'Section': 'sections',
    'check_directory': 'directory',
    'gather': 'gathering',
    'is_unchanged': 'origin',
    'origin_of': 'origin',
    'render': 'directory',
    'save': 'directory',
    'terminal': 'tables',
    'write': 'directory',
}


_MODULES = ('figures', 'leaderboard')


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f'{__name__}.{name}')
    if name in _NAMES:
        return getattr(importlib.import_module(f'{__name__}.{_NAMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = [
    'ArrayRun',
    'KeptTensors',
    'PublishedRow',
    'PublishedSpread',
    'Reference',
    'ReportedRun',
    'Results',
    'Section',
    'check_directory',
    'figures',
    'gather',
    'is_unchanged',
    'leaderboard',
    'origin_of',
    'render',
    'save',
    'terminal',
    'write',
]
