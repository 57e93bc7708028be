"""The numbers of the paper that reports of texts stand beside (arXiv 2506.20481)."""

from influence_jax.report import PublishedRow, PublishedSpread, Reference

_MARGIN = PublishedRow(PublishedSpread(9.1, 7.1), PublishedSpread(1.3, 0.3), 1)

PUBLISHED = Reference(
    'the paper',
    'arXiv 2506.20481: GPT-Neo 1.3B on Natural Questions, 1,000 models',
    # Of 1,000 unique records and 100 in 5 versions each.
    {
        'self-influence': PublishedRow(
            PublishedSpread(1.410, 0.568), PublishedSpread(0.495, 0.133), 3
        ),
        'BLEU': PublishedRow(PublishedSpread(0.070, 0.142), PublishedSpread(0.363, 0.313), 3),
        'margin': _MARGIN,
        'margin, by difference of means': _MARGIN,
    },
)
