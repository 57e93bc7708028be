"""Losses and scores of tokens, kept in the directory of a run on texts."""

from pathlib import Path
from typing import NamedTuple

from influence_jax.analysis.tokens import TokenLosses, TokenScores
from influence_jax.report import storage
from influence_jax.report.directory import replaced_at_once

TOKENS = 'tokens.zarr'
"""Name of the kept losses and scores in a run's directory."""


class TokenResults(NamedTuple):
    """What is known of the tokens of a run's targets.

    run: identity of the run.
    examples: N.
    losses: of all targets.
    scores: of some pairs; None where no method of attribution was asked for them.
    """

    run: str
    examples: int
    losses: TokenLosses
    scores: TokenScores | None = None

    @classmethod
    def load(cls, directory: Path | str, *, run: str) -> 'TokenResults':
        """Reads what is kept in the directory of a run.

        Args:
            directory: of the run.
            run: its identity.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, of another version or of another run; one line.
        """
        path = Path(directory) / TOKENS
        kept = storage.load(path, cls)
        try:
            if kept.run != run:
                raise ValueError('it is of another run')
            kept.losses.check()
            if kept.scores is not None:
                kept.scores.check(examples=kept.examples, lengths=kept.losses.tokens.lengths)
        except ValueError as error:
            raise ValueError(
                f'{path} cannot be used: {error}; remove it and repeat the command of the run'
            ) from error
        return kept

    def save(self, directory: Path | str) -> None:
        """Writes it to the directory of a run, in place of what is kept there; durable on return.

        A kill at any moment leaves what was there, or this, as `replaced_at_once` says.

        Raises:
            OSError: it cannot be written.
        """
        with replaced_at_once((Path(directory) / TOKENS).resolve()) as partial:
            storage.save(partial, self)
