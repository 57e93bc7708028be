"""What a launch of an ensemble of language models can be told, beside `experiments.settings`."""

import dataclasses
import math
from typing import NamedTuple

from influence_jax.data.near_duplicates import TextChange
from influence_jax.ensemble import Checkpointing
from influence_jax.models.lora import LoRA

_PUBLIC = ('wordnet', 'nq_open')
_OF_THE_PAPER = 1000, 100
"""Records that are written once, and several times."""


class Counts(NamedTuple):
    """How many records are chosen.

    unique: that are written once; None for all that are not duplicated.
    duplicated: that are written several times.
    """

    unique: int | None
    duplicated: int

    @property
    def is_everything(self) -> bool:
        """Whether a file is taken as it is: all records, and no near-duplicates of them."""
        return self == (None, 0)

    def records(self, available: int, *, copies: int) -> int:
        """Returns how many there are of so many available ones, copies included."""
        unique = max(0, available - self.duplicated) if self.unique is None else self.unique
        return unique + self.duplicated * copies


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """Which records, and which of them near-duplicated.

    Attributes:
        dataset: wordnet (embedded), nq_open, or the path of a .jsonl file whose lines hold
            question and answer, prompt and completion, or text.
        data_dir: folder that holds NQ-open, as a .jsonl file or prepared by TFDS.
        unique: records that are written once; 0 takes all the others. By default 1000 of wordnet
            and nq_open, and all of a file of one's own.
        duplicated: records that are written --copies times, each time changed; repeated records
            are then left out; 0 plants none. By default 100 of wordnet and nq_open, and none of a
            file of one's own, which is used as it is.
        copies: how often these are written: the original and its variants.
        duplication: what the variants differ in, as far as the answer goes; paraphrase needs
            answers with several common words, which NQ-open's seldom have.
        duplication_count: how many tokens or words of a variant are changed, for duplications
            that have a number; 0 takes their own.
        max_length: longest record in tokens; longer ones are cut.
    """

    dataset: str = 'wordnet'
    data_dir: str | None = None
    unique: int | None = None
    duplicated: int | None = None
    copies: int = 5
    duplication: TextChange = TextChange.REPLACE_TOKEN
    duplication_count: int = 0
    max_length: int = 100

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(
                f'max_length must be 2 or more, not {self.max_length}: the first token of a '
                f'record is never predicted'
            )
        if (self.unique or 0) < 0:
            raise ValueError(f'unique must be 0 (all the others) or more, not {self.unique}')
        if (self.duplicated or 0) < 0:
            raise ValueError(f'duplicated must be 0 (none) or more, not {self.duplicated}')

    @property
    def is_own(self) -> bool:
        """Whether the records are a file of the user's, with which no published numbers go."""
        return self.dataset not in _PUBLIC

    def counts(self) -> Counts:
        """Returns how many records are chosen."""
        unique, duplicated = (0, 0) if self.is_own else _OF_THE_PAPER
        unique = unique if self.unique is None else self.unique
        return Counts(unique or None, duplicated if self.duplicated is None else self.duplicated)

    def counts_before(self) -> Counts:
        """Returns what the same flags meant in earlier versions, whose runs may be continued."""
        unique, duplicated = _OF_THE_PAPER
        return Counts(
            unique if self.unique is None else self.unique,
            duplicated if self.duplicated is None else self.duplicated,
        )

    def check_near_duplicates(self) -> None:
        """Refuses settings of near-duplicates where none are made by default.

        Raises:
          ValueError: naming the flag.
        """
        if self.duplicated is not None or self.counts().duplicated:
            return
        for field in dataclasses.fields(self):
            if field.name not in ('copies', 'duplication', 'duplication_count'):
                continue
            if getattr(self, field.name) != field.default:
                raise ValueError(
                    f'--{field.name} is of near-duplicates, but none are made of {self.dataset}: '
                    f'add --duplicated, the number of records to write several times'
                )


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Which language model.

    Attributes:
        model: tiny (a fresh GPT-Neo of the sizes below, with a tokenizer trained on the records),
            or the folder or hub name of a GPT-Neo checkpoint, from which every member starts.
        tokenizer: folder or hub name of a tokenizer; by default the checkpoint's own or, for the
            tiny model, one trained on the records.
        width: of the tiny model.
        layers: of the tiny model.
        heads: of the tiny model.
        vocabulary: of the tiny model, where --tokenizer brings none.
        pretrain_epochs: train the tiny model on the dataset's other records first, so often; all
            members start from the result, which is kept in --base_dir; 0 starts from nothing.
        base_dir: where pretrained models are kept, for all runs that begin from the same; by
            default the folder `bases` beside OUTPUT_DIR.
        lora_rank: train adapters of this rank on the frozen base instead of all of the model; 0
            trains all of it.
        bfloat16: keep activations in bfloat16, too, with parameters and optimiser in float32;
            --compute_dtype rounds the factors of products alone.
        remat: compute each layer again for its gradient, which saves memory.
    """

    model: str = 'tiny'
    tokenizer: str | None = None
    width: int = 64
    layers: int = 1
    heads: int = 4
    vocabulary: int = 1000
    pretrain_epochs: float = 0.0
    base_dir: str | None = None
    lora_rank: int = 0
    bfloat16: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        for name in ('pretrain_epochs', 'lora_rank'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must be 0 (none) or more, not {getattr(self, name)}')
        if not self.is_tiny and self.pretrain_epochs:
            raise ValueError(
                f'--model={self.model} is pretrained already; leave out --pretrain_epochs'
            )
        if self.is_tiny and self.lora_rank and not self.pretrain_epochs:
            raise ValueError(
                '--lora_rank adapts a model that has learnt something: add --pretrain_epochs, '
                'or choose a checkpoint with --model'
            )

    @property
    def is_tiny(self) -> bool:
        """Whether the model is fresh, of the sizes given here."""
        return self.model == 'tiny'

    @property
    def lora(self) -> LoRA | None:
        """The adapters; None where all of the model is trained."""
        return LoRA(self.lora_rank) if self.lora_rank else None


@dataclasses.dataclass(frozen=True)
class ExtractionSettings:
    """What trained members are asked.

    Attributes:
        extract: have every member complete every record's prompt, and record how much of the
            truth that gives back; a model trained on all records does so in any case.
        token_members: with --keep_params, of how many members, evenly chosen, the loss of every
            token is averaged, for experiments.explore; 0 for none.
    """

    extract: bool = True
    token_members: int = 64

    def __post_init__(self) -> None:
        if self.token_members < 0:
            raise ValueError(f'token_members must be 0 (none) or more, not {self.token_members}')


@dataclasses.dataclass(frozen=True)
class LargeSettings:
    """How members too large for one device are trained, on the devices of --mesh.

    Attributes:
        plan: train nothing; compile the step for --topology and say whether it fits.
        checkpoint_steps: keep members in training after so many steps; 0 never does.
        checkpoint_minutes: but no sooner than so many minutes after the last time, or after they
            began; 0 does each time.
    """

    plan: bool = False
    checkpoint_steps: int = 200
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.checkpoint_steps < 0:
            raise ValueError(
                f'checkpoint_steps must be 0 (never) or more, not {self.checkpoint_steps}'
            )
        if not 0 <= self.checkpoint_minutes < math.inf:
            raise ValueError(
                f'checkpoint_minutes must be 0 (each time) or more, not {self.checkpoint_minutes}'
            )

    def checkpointing(self) -> Checkpointing | None:
        """When members are kept while they train; None where never."""
        if not self.checkpoint_steps:
            return None
        return Checkpointing(self.checkpoint_steps, self.checkpoint_minutes)
