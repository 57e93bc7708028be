"""From masks and measurements to influence, with error bars."""

from influence_jax.estimators.adjusted import adjusted
from influence_jax.estimators.difference import difference_in_means, tiles
from influence_jax.estimators.ensemble import check_both_sides
from influence_jax.estimators.summary import Summary, summarize

__all__ = ['Summary', 'adjusted', 'check_both_sides', 'difference_in_means', 'summarize', 'tiles']
