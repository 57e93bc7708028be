"""What documents of targets have of their tokens: losses by membership, and scores of pairs."""

from typing import Any

from influence_jax.analysis.tokens import TokenLosses, TokenScores
from influence_jax.explorer import encoding
from influence_jax.report.tokens import TokenResults

MOST_TOKENS = 1024
"""Of a target, in its document: longer texts are cut."""

_DIGITS, _DIGITS_OF_ERRORS = 4, 3


def described(kept: TokenResults) -> dict[str, Any]:
    """Returns what `run.json` says of the losses and scores."""
    scores = kept.scores
    return {
        'members': len(kept.losses.members),
        'scores': scores
        and {
            'method': encoding.name(scores.method.title),
            'description': encoding.prose(scores.method.description),
            'member': scores.member,
            'targets': len(set(scores.targets.tolist())),
            'pairs': len(scores.targets),
        },
    }


def target_tokens(kept: TokenResults, target: int) -> dict[str, Any]:
    """Returns the tokens of a target with their losses, and with the scores that there are."""
    return _losses(kept.losses, target) | {'scores': _scores(kept.scores, target)}


def _losses(losses: TokenLosses, target: int) -> dict[str, Any]:
    found = losses.of_target(target)
    shown = slice(0, MOST_TOKENS)
    return {
        'texts': [encoding.token(text) for text in found.texts[shown]],
        'more': max(0, len(found.texts) - MOST_TOKENS),
        'answer_start': found.answer_start,
        'cut': found.cut,
        'included': found.included,
        'left_out': found.left_out,
        'in': encoding.numbers(found.loss_in[shown], _DIGITS),
        'in_error': encoding.numbers(found.error_in[shown], _DIGITS_OF_ERRORS),
        'out': encoding.numbers(found.loss_out[shown], _DIGITS),
        'out_error': encoding.numbers(found.error_out[shown], _DIGITS_OF_ERRORS),
    }


def _scores(scores: TokenScores | None, target: int) -> list[list[Any]]:
    """`[example, [score, ...]]` of each pair of the target."""
    if scores is None:
        return []
    return [
        [example, encoding.numbers(values[:MOST_TOKENS], _DIGITS)]
        for example, values in scores.of_target(target)
    ]
