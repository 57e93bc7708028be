"""The language experiments' story: records -> members -> losses and completions -> report."""

import dataclasses
from pathlib import Path

from experiments import language_data, launch, plan
from experiments.language_settings import (
    ExtractionSettings,
    LargeSettings,
    ModelSettings,
    TextSettings,
)
from experiments.paper import PUBLISHED
from experiments.plan import PlanSettings
from experiments.processes import ProcessSettings
from experiments.settings import AnalysisSettings, EnsembleSettings, MachineSettings
from influence_jax import planning
from influence_jax.data import Dataset
from influence_jax.ensemble import train_ensemble, train_full_data_model
from influence_jax.hub import NotFetched
from influence_jax.models.gpt_neo import SHARDING_RULES
from influence_jax.progress import TerminalProgress
from influence_jax.store import FULL_DATA_MODEL
from influence_jax.tasks import CausalLM
from influence_jax.training import Executor, MeshShape, Recipe, sequential, sharded
from influence_jax.training.multihost import is_primary, one_after_another

BASES = 'bases'


@dataclasses.dataclass(frozen=True)
class LanguageExperiment:
    """All settings of a launch."""

    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    ensemble: EnsembleSettings = dataclasses.field(default_factory=EnsembleSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    extraction: ExtractionSettings = dataclasses.field(default_factory=ExtractionSettings)
    machine: MachineSettings = dataclasses.field(default_factory=MachineSettings)
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)
    large: LargeSettings = dataclasses.field(default_factory=LargeSettings)
    plan: PlanSettings = dataclasses.field(default_factory=PlanSettings)
    processes: ProcessSettings = dataclasses.field(default_factory=ProcessSettings)

    def mesh(self) -> Executor | None:
        """Over which devices each member is; None where one device holds it."""
        if not self.plan.mesh:
            return None
        if self.machine.streams:
            raise ValueError('--streams is for members that fit on one device: leave out --mesh')
        shape = MeshShape.parse(self.plan.mesh, vmapped=self.machine.vmap or 1)
        return sharded(shape, SHARDING_RULES)


def run(experiment: LanguageExperiment) -> Path | None:
    """Trains what is missing of the ensemble, writes its report and returns the page's path.

    Of several processes the primary one writes, and the others return None; as one that only plans.
    """
    if experiment.large.plan:
        _plan(experiment)
        return None
    machine, recipe, seed = experiment.machine, experiment.recipe, experiment.ensemble.seed
    executor = experiment.mesh()
    experiment.processes.join(executor.shape if executor else None)
    if not experiment.processes.coordinator:
        launch.use_devices(executor.shape.devices if executor else machine.streams)
    dataset, task = prepare(experiment)
    launch.show_notes((*dataset.notes, *task.notes(dataset)))
    checkpointing = experiment.large.checkpointing() if executor else None
    flags = experiment.ensemble, recipe, machine, experiment.analysis
    run = train_ensemble(
        task,
        dataset,
        checkpointing=checkpointing,
        **launch.arguments(*flags, executor=executor),
    )
    train_full_data_model(
        dataclasses.replace(task, extract=False, keep_completions=True),
        dataset,
        output_dir=Path(machine.output_dir) / FULL_DATA_MODEL,
        recipe=recipe,
        executor=executor or sequential(1),
        seed=seed,
        checkpointing=checkpointing,
        progress=TerminalProgress(),
        command=launch.command(),
    )
    if not is_primary():
        return None
    return launch.report_of(
        run,
        dataset,
        experiment.analysis,
        reference=PUBLISHED,
        facts=language_data.facts(task, dataset),
    )


def prepare(experiment: LanguageExperiment) -> tuple[Dataset, CausalLM]:
    """Makes the dataset, and the task that members train."""
    seed = experiment.ensemble.of_data
    records = language_data.prepare(experiment.text, experiment.model, seed=seed)
    with one_after_another():
        task = language_data.task_of(
            experiment.model,
            records,
            experiment.recipe,
            default_dir=Path(experiment.machine.output_dir).with_name(BASES),
            max_length=experiment.text.max_length,
            extract=experiment.extraction.extract,
            seed=seed,
        )
    return records.dataset, task


def _plan(experiment: LanguageExperiment) -> None:
    recipe, model, text = experiment.recipe, experiment.model, experiment.text
    if model.is_tiny:
        raise ValueError('--plan is for large members: name a checkpoint with --model')
    analysis, ensemble = experiment.analysis, experiment.ensemble
    vmapped = experiment.machine.vmap or 1
    settings = planning.RunSettings(
        members=analysis.max_members if analysis.grows else ensemble.members,
        records=text.unique + text.duplicated * text.copies,
        keep=ensemble.keep,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        tokens=_longest_record(experiment),
        lora_rank=model.lora_rank,
        vmap=vmapped,
    )
    config = planning.checkpoint_config(model.model, bfloat16=model.bfloat16, remat=model.remat)
    plan.show(experiment.plan, planning.language_run(config, settings), vmapped=vmapped)


def _longest_record(experiment: LanguageExperiment) -> int:
    """In tokens; the most there can be where records or tokenizer are not at hand."""
    text = experiment.text
    if text.dataset == 'nq_open' and text.data_dir is None:
        return text.max_length
    try:
        records = language_data.prepare(text, experiment.model, seed=experiment.ensemble.of_data)
    except NotFetched:
        return text.max_length
    return language_data.longest(records, text.max_length)
