"""A language experiment: all its settings, and what every member is trained by."""

import dataclasses

import jax
import numpy as np
from absl import flags as absl_flags

from experiments.language_base import Base
from experiments.language_data import Records
from experiments.language_settings import (
    ExtractionSettings,
    LargeSettings,
    ModelSettings,
    TextSettings,
)
from experiments.members import Spread
from experiments.plan import PlanSettings
from experiments.processes import ProcessSettings
from experiments.settings import AnalysisSettings, EnsembleSettings, MachineSettings
from influence_jax import training
from influence_jax.analysis.convergence import SequentialStopping
from influence_jax.models.adapter_modeling import AdapterModeling
from influence_jax.models.gpt_neo.sharding import RULES
from influence_jax.models.language_modeling import LanguageModeling
from influence_jax.training.mesh import MeshShape
from influence_jax.types import PRNGKey

absl_flags.disclaim_key_flags()  # they are the launch's, see experiments.flags

_LOGITS_AT_ONCE = 2**25
"""Most logits that a member holds on a device while targets are measured: 128 MiB of them."""


@dataclasses.dataclass(frozen=True)
class LanguageExperiment:
    """All settings of a launch."""

    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    ensemble: EnsembleSettings = dataclasses.field(default_factory=EnsembleSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    recipe: training.Recipe = dataclasses.field(default_factory=training.Recipe)
    extraction: ExtractionSettings = dataclasses.field(default_factory=ExtractionSettings)
    machine: MachineSettings = dataclasses.field(default_factory=MachineSettings)
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)
    large: LargeSettings = dataclasses.field(default_factory=LargeSettings)
    plan: PlanSettings = dataclasses.field(default_factory=PlanSettings)
    processes: ProcessSettings = dataclasses.field(default_factory=ProcessSettings)

    @property
    def members(self) -> int:
        """M: how many members the run has room for."""
        return self.analysis.max_members if self.analysis.grows else self.ensemble.members

    def growth(self) -> SequentialStopping | None:
        """When to stop training before all members are there; None where not to."""
        key = jax.random.key(self.ensemble.seed)
        return self.analysis.stopping(self.ensemble.design, key=key)

    def spread(self) -> Spread | None:
        """Over which devices each member is; None where one device holds it."""
        if not self.plan.mesh:
            return None
        if self.machine.streams:
            raise ValueError('--streams is for members that fit on one device: leave out --mesh')
        shape = MeshShape.parse(self.plan.mesh, vmapped=self.machine.vmap or 1)
        large = self.large
        return Spread(shape, RULES, large.checkpoint_steps, large.checkpoint_minutes)

    def configuration(self, records: Records, base: Base) -> dict[str, object]:
        """What determines the results, as the run's manifest keeps it."""
        ensemble = dataclasses.asdict(self.ensemble)
        del ensemble['seed'], ensemble['members']  # the manifest has them in their own places
        text = dataclasses.asdict(self.text) | {'duplication': self.text.duplication.value}
        del text['dataset'], text['data_dir']  # what was read there counts: its fingerprint
        return {
            'ensemble': ensemble | {'design': self.ensemble.design.value},
            'text': text,
            'network': base.config.to_hugging_face()
            | {'compute_dtype': base.config.compute_dtype.name},
            'base': base.identity,
            'lora_rank': self.model.lora_rank,
            'tokenizer': records.tokenizer.fingerprint,
            'recipe': dataclasses.asdict(self.recipe),
            'extract': self.extraction.extract,
        }


def training_program(
    experiment: LanguageExperiment,
    records: Records,
    base: Base,
    masks: np.ndarray,
    *,
    key: PRNGKey,
) -> training.Program:
    """What every member is trained by; the masks say how large a batch can become."""
    recipe, lora = experiment.recipe, experiment.model.lora
    steps = recipe.steps(experiment.ensemble.keep * masks.shape[1])
    modeling = LanguageModeling(base.config)
    logits = records.tokens.tokens.shape[1] * base.config.vocab_size
    spread = experiment.spread()
    parts = spread.shape.data if spread else 1
    program = training.Program(
        task=modeling,
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=recipe.batch_size,
        measure_batch=parts * max(1, _LOGITS_AT_ONCE // logits),
        smallest_subset=int(masks.sum(axis=1).min()),
    )
    if not spread:  # on a mesh a batch stays whole, to be spread over devices
        counts = records.tokens.lengths - 1
        capacity = training.largest_batch(program, masks, key=key, sizes=counts)
        modeling = dataclasses.replace(modeling, capacity=capacity)
    if lora:
        return program._replace(task=AdapterModeling(modeling, lora))
    return program._replace(task=modeling if base.params is None else training.WarmStart(modeling))
