"""From results to one self-contained page, its figures and its tables."""

from influence_jax.report.tables import printable, terminal_table
from influence_jax.report.thumbnails import Show, texts, thumbnails
from influence_jax.report.write import check_directory, write

__all__ = [
    'Show',
    'check_directory',
    'printable',
    'terminal_table',
    'texts',
    'thumbnails',
    'write',
]
