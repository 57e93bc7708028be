"""From results to one self-contained page, its figures and its tables."""

from influence_jax.report.tables import printable, terminal_table
from influence_jax.report.thumbnails import Show, thumbnails
from influence_jax.report.write import write

__all__ = ['Show', 'printable', 'terminal_table', 'thumbnails', 'write']
