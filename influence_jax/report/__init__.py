"""From a run to one self-contained page, its figures, its tables and its stored results.

`write(run)` does it all: `gather` estimates and collects `Results`, `save` stores them and what
`render` makes of them. `Results.load(DIR)` reads them back; `terminal` shows them in short.
"""

from influence_jax.report.directory import check_directory, render, save, write
from influence_jax.report.gathering import gather
from influence_jax.report.kept import KeptTensors
from influence_jax.report.results import PublishedRow, PublishedSpread, Reference, Results
from influence_jax.report.run import ArrayRun, ReportedRun
from influence_jax.report.sections import Section
from influence_jax.report.tables import terminal

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
    'gather',
    'render',
    'save',
    'terminal',
    'write',
]
