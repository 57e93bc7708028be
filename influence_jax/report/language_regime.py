"""What the page says of a run that gives back other records than the paper's models do."""

from influence_jax.analysis.extraction_regime import Judgment, MeanBleu, Regime
from influence_jax.analysis.scores import ReferenceRow
from influence_jax.report.wording import number


def regime_fact(judgment: Judgment) -> str:
    """The regime and the numbers it is told from, for the table of facts."""
    return f'{judgment.regime.value} ({_numbers(judgment)})'


def regime_note(judgment: Judgment, *, epochs: float, reference: ReferenceRow) -> str | None:
    """A caution where a run is not in the paper's regime, and how to get there; None where it is.

    Args:
      judgment: from `extraction_regime.judge`.
      epochs: how long members trained.
      reference: the paper's BLEU.
    """
    if judgment.regime is Regime.PAPER:
        return None
    unique, near_duplicated = (of.mean for of in (reference.unique, reference.near_duplicated))
    papers = f"the paper's BLEU is {number(unique)} unique, {number(near_duplicated)}"
    if judgment.regime is Regime.BEYOND:
        what = (
            'Unique records are given back as well as near-duplicated ones, or nearly so: members '
            'trained until they know all they hold, and what influence says of extraction here is '
            'not what the paper says'
        )
        how = f'train for less time, such as --epochs={epochs / 2:g} instead of {epochs:g}'
    else:
        what = (
            'Hardly any record is given back: members trained too short a time for influence to '
            'say anything of extraction'
        )
        how = f'train for longer, such as --epochs={2 * epochs:g} instead of {epochs:g}'
    return (
        f'{what} ({_numbers(judgment)}; {papers} near-duplicated). For its regime {how}, into '
        f'another --output_dir.'
    )


def _numbers(judgment: Judgment) -> str:
    def means(of: MeanBleu) -> str:
        return f'{number(of.unique)} unique, {number(of.near_duplicated)} near-duplicated'

    text = f'BLEU {means(judgment.by_full_data_model)}'
    if judgment.by_holders is not None:
        text += f'; of members that held the record {means(judgment.by_holders)}'
    return text
