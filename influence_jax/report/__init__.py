"""From results to one self-contained page, its figures and its tables."""

from influence_jax.report.comparison_sections import image_sections
from influence_jax.report.comparison_tables import terminal_comparison
from influence_jax.report.csv_files import records_csv
from influence_jax.report.language import language_sections
from influence_jax.report.language_regime import regime_fact, regime_note
from influence_jax.report.language_results import LanguageResults, shortened
from influence_jax.report.language_tables import language_table
from influence_jax.report.sections import Section
from influence_jax.report.tables import printable, terminal_table
from influence_jax.report.thumbnails import Show, texts, thumbnails
from influence_jax.report.write import check_directory, write

__all__ = [
    'LanguageResults',
    'Section',
    'Show',
    'check_directory',
    'image_sections',
    'language_sections',
    'language_table',
    'printable',
    'records_csv',
    'regime_fact',
    'regime_note',
    'shortened',
    'terminal_comparison',
    'terminal_table',
    'texts',
    'thumbnails',
    'write',
]
