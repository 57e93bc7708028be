"""What the paper found: the numbers that a run on texts is set beside."""

from influence_jax.analysis.scores import Published, Reference, ReferenceRow

PUBLISHED = Reference(
    source='arXiv 2506.20481: GPT-Neo 1.3B on Natural Questions, 1,000 models',
    self_influence=ReferenceRow(Published(1.410, 0.568), Published(0.495, 0.133), digits=3),
    bleu=ReferenceRow(Published(0.070, 0.142), Published(0.363, 0.313), digits=3),
    margin=ReferenceRow(Published(9.1, 7.1), Published(1.3, 0.3), digits=1),
)
"""Its table, of 1,000 unique records and 100 in 5 versions each."""
