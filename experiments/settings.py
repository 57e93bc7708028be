"""What a launch of an image ensemble can be told, concern by concern."""

import dataclasses
import math
from typing import TYPE_CHECKING

from influence_jax.data import Dataset
from influence_jax.data.near_duplicates import ImageChange
from influence_jax.data.wrong_labels import plant_wrong_labels
from influence_jax.estimators import Estimator, adjusted
from influence_jax.models import ResNetConfig
from influence_jax.subsets import Design
from influence_jax.tasks import Classification
from influence_jax.tasks.images import random_crop_and_flip, standardized
from influence_jax.training import Automatic

if TYPE_CHECKING:
    from influence_jax.attribution import Attribution


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which images.

    Attributes:
        dataset: clipart (embedded), cifar10, or the path of a .npz file with images [N H W C] or
            [N C H W], grey or color, 0 to 255 or 0 to 1, and labels (or x_train and y_train, X and
            y, data and target).
        data_dir: folder that holds CIFAR-10, as data_batch_*.bin or prepared by TFDS.
        num_examples: how many images to use, drawn at random with --data_seed; 0 takes all.
    """

    dataset: str = 'clipart'
    data_dir: str | None = None
    num_examples: int = 0

    def __post_init__(self) -> None:
        if self.num_examples < 0:
            raise ValueError(f'num_examples must be 0 (all) or more, not {self.num_examples}')


@dataclasses.dataclass(frozen=True)
class PlantingSettings:
    """Which images are near-duplicated.

    Attributes:
        duplicated: images that are written --copies times, each time changed; the dataset's own
            near-duplicates are then left out; 0 plants none.
        copies: how often these are written: the original and its variants.
        duplication: what the variants differ in; of an image there are 4 flips, itself included.
        unique: images that are written once; 0 takes all the others.
    """

    duplicated: int = 0
    copies: int = 5
    duplication: ImageChange = ImageChange.NOISE
    unique: int = 0

    def __post_init__(self) -> None:
        if self.duplicated < 0:
            raise ValueError(f'duplicated must be 0 (none) or more, not {self.duplicated}')
        if self.unique < 0:
            raise ValueError(f'unique must be 0 (all the others) or more, not {self.unique}')
        if self.copies < 2:
            raise ValueError(
                f'copies must be at least 2 (an original and a variant), not {self.copies}'
            )
        if not self.duplicated:
            self._refuse_what_would_be_ignored()
        if self.duplication is ImageChange.FLIP and self.copies > 4:
            raise ValueError(
                f'--duplication=flip makes only 4 different versions of an image, the original '
                f'included, not --copies={self.copies}; make 4 or fewer, or change images otherwise'
            )

    def _refuse_what_would_be_ignored(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default:
                raise ValueError(
                    f'--{field.name} is of near-duplicates, but none are planted: '
                    f'add --duplicated, the number of images to write several times'
                )


@dataclasses.dataclass(frozen=True)
class LabelSettings:
    """Which labels are made wrong.

    Attributes:
        wrong_labels: share of the examples, drawn at random with --data_seed, that get the label of
            another class, such as 0.1; the judge then scores how well they are found; 0 leaves all
            as they are.
    """

    wrong_labels: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.wrong_labels < 1:
            raise ValueError(f'wrong_labels must lie in [0, 1), not {self.wrong_labels}')

    def plant(self, dataset: Dataset, *, seed: int) -> Dataset:
        """Returns the dataset with these labels."""
        if not self.wrong_labels:
            return dataset
        return plant_wrong_labels(dataset, self.wrong_labels, seed=seed)


@dataclasses.dataclass(frozen=True)
class EnsembleSettings:
    """Which members.

    Attributes:
        members: number M of models to train, each on its own random subset; with
            --until_standard_error that is --max_members instead.
        keep: probability, or fraction, with which an example is in a subset.
        design: how subsets are drawn: every example independently, exactly keep * N examples a
            member, or every example in exactly keep * M members.
        repeats: members that share a subset and differ in seed alone; divides --members.
        seed: of subsets, initial parameters, batch order and augmentation.
        data_seed: of the choice of records and of the near-duplicates made of them; by default
            --seed. Two runs of one data_seed are of the same records, whatever else differs.
    """

    members: int = 128
    keep: float = 0.5
    design: Design = Design.INDEPENDENT
    repeats: int = 1
    seed: int = 0
    data_seed: int | None = None

    def __post_init__(self) -> None:
        for name, seed in (('seed', self.seed), ('data_seed', self.of_data)):
            if not 0 <= seed < 2**32:  # jax would drop the bits above
                raise ValueError(f'{name} must lie in 0 .. {2**32 - 1}, not {seed}')

    @property
    def of_data(self) -> int:
        """The seed of the records."""
        return self.seed if self.data_seed is None else self.data_seed


@dataclasses.dataclass(frozen=True)
class AnalysisSettings:
    """How influence is estimated, and how precisely.

    Attributes:
        estimator: adjusted takes each target's own inclusion and strongest influencers out of
            the losses first and needs 48 members (below, the difference of means is used).
        until_standard_error: train members, in order, until the median standard error off the
            diagonal is at most this, in nats; 0 trains all --members.
        max_members: with --until_standard_error, how many members to train at most.
        attribution: methods of attribution, separated by commas, whose scores stand beside the
            ensemble's, such as cosine,ekfac; they read trained parameters (--keep_params).
        attribution_models: how many members they read; scores are averaged over them.
        assisted: instead of --estimator: the ensemble's estimate with these scores beside it, which
            has no p-values and is biased towards what they foretell.
    """

    estimator: Estimator = adjusted
    until_standard_error: float = 0.0
    max_members: int = 1000
    attribution: str = ''
    attribution_models: int = 1
    assisted: bool = False

    def __post_init__(self) -> None:
        self.methods()
        if self.assisted and not self.attribution:
            raise ValueError(
                '--assisted is of scores, but none are computed: add --attribution, such as '
                '--attribution=cosine,trak'
            )
        if self.attribution_models < 1:
            raise ValueError(
                f'attribution_models must be at least 1, not {self.attribution_models}'
            )
        if not 0 <= self.until_standard_error < math.inf:
            raise ValueError(
                f'until_standard_error must be 0 (train all) or positive and finite, '
                f'not {self.until_standard_error}'
            )
        if self.max_members < 1:
            raise ValueError(f'max_members must be at least 1, not {self.max_members}')

    def methods(self) -> 'tuple[Attribution, ...]':
        """The methods of attribution that are asked for."""
        if not self.attribution:
            return ()
        from influence_jax import attribution  # slow to import, seldom needed

        names = filter(None, (name.strip() for name in self.attribution.split(',')))
        return tuple(attribution.by_name(name) for name in names)

    @property
    def grows(self) -> bool:
        """Whether members are trained until their estimates are precise enough."""
        return self.until_standard_error > 0

    def most_members(self, ensemble: EnsembleSettings) -> int:
        """M, or how many members are trained at most."""
        return self.max_members if self.grows else ensemble.members


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Which ResNet.

    Attributes:
        width: channels of the first stage; each further stage has twice as many.
        stages: number of stages; resolution is halved between them.
        blocks: residual blocks a stage, of two convolutions each.
        patch: side of the squares of pixels that the first layer reads as channels.
        augment: train on random crops and flips of the images.
    """

    width: int = 32
    stages: int = 2
    blocks: int = 1
    patch: int = 4
    augment: bool = False

    def task(self, dataset: Dataset) -> Classification:
        """The task of classifying these images."""
        blocks, channels = (self.blocks,) * self.stages, dataset.array('image').shape[-1]
        config = ResNetConfig(
            dataset.num_classes, self.width, blocks, self.patch, channels=channels
        )
        augment = random_crop_and_flip if self.augment else None
        return Classification(config, inputs='image', prepare=standardized, augment=augment)


@dataclasses.dataclass(frozen=True)
class ChipSettings:
    """Whether to plan instead of training.

    Attributes:
        plan: train nothing; compile the step for --topology, which needs no TPU but the extra tpu,
            and print memory and a roofline estimate of members a second.
        topology: the TPU slice, such as v5e:2x2; a wrong name lists those known.
    """

    plan: bool = False
    topology: str = 'v5e:2x2'


@dataclasses.dataclass(frozen=True)
class MachineSettings:
    """How to run; changes results by rounding alone (--vmap) or not at all (the others).

    Attributes:
        streams: devices (on a CPU: cores) that train members side by side; 0 takes all.
        vmap: members that share one set of operations on a device; 0 lets it follow from the
            device and the model, and keeps to it when the run is continued.
        autotune: find the fastest --vmap by timing a few steps, as a run is begun.
        keep_params: keep every member's trained parameters in OUTPUT_DIR/params.
        output_dir: the run's directory; the same command continues a run that was stopped, and
            with more --members adds to it.
    """

    streams: int = 0
    vmap: int = 0
    autotune: bool = False
    keep_params: bool = False
    output_dir: str = 'runs/image_resnet'

    def __post_init__(self) -> None:
        for name in ('streams', 'vmap'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must be 0 (automatic) or more, not {getattr(self, name)}')

    def executor(self) -> Automatic:
        """How members share devices."""
        return Automatic(self.streams or None, self.vmap or None, self.autotune)
