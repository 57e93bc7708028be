"""The language experiments' story: records -> members -> losses and completions -> report."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

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
from influence_jax import planning, tokens
from influence_jax.data import Dataset
from influence_jax.ensemble import train_ensemble, train_full_data_model
from influence_jax.formatting import count
from influence_jax.hub import NotFetched
from influence_jax.models.gpt_neo import SHARDING_RULES
from influence_jax.progress import TerminalProgress
from influence_jax.run import Run
from influence_jax.store import FULL_DATA_MODEL, RunError, read_manifest
from influence_jax.tasks import CausalLM
from influence_jax.text import clean
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
        progress=TerminalProgress('model of all records'),
        command=launch.command(),
    )
    if not is_primary():
        return None
    page = launch.report_of(
        run,
        dataset,
        experiment.analysis,
        reference=None if experiment.text.is_own else PUBLISHED,
        facts=language_data.facts(task, dataset),
    )
    if machine.keep_params and experiment.extraction.token_members:
        if jax.process_count() > 1:  # reading parameters waits for all of them
            launch.show_notes(
                ['tokens are not measured by several processes: call influence_jax.tokens.keep']
            )
        else:
            _keep_tokens(run, dataset, experiment)
    return page


def _keep_tokens(run: Run, dataset: Dataset, experiment: LanguageExperiment) -> None:
    """Keeps losses of tokens and, by the first method that has them, scores of tokens."""
    methods = experiment.analysis.methods()
    kept = tokens.keep(
        run,
        dataset,
        members=experiment.extraction.token_members,
        method=next((one for one in methods if one.linear_in_targets), None),
        progress=TerminalProgress('token losses'),
    )
    found = [
        f'losses of {count(len(kept.losses.tokens.tokens), "token")} by '
        f'{count(len(kept.losses.members), "member")}'
    ]
    if kept.scores is not None:
        pairs = count(len(kept.scores.targets), 'pair')
        found += [f'scores of {pairs} by {kept.scores.method.title} of one member']
    line = f'tokens: {", ".join(found)} (python -m experiments.explore {run.directory})'
    launch.show_notes([clean(line)])


def prepare(experiment: LanguageExperiment) -> tuple[Dataset, CausalLM]:
    """Makes the dataset, and the task that members train."""
    seed = experiment.ensemble.of_data
    records = language_data.prepare(
        experiment.text, experiment.model, seed=seed, ids=_ids_of(experiment.machine.output_dir)
    )
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


def _ids_of(directory: str) -> tuple[str, ...] | None:
    """The examples of the run that is to be continued; None where there is none to be read."""
    try:
        return read_manifest(Path(directory)).example_ids
    except RunError:  # training says what is wrong with it
        return None


def _plan(experiment: LanguageExperiment) -> None:
    recipe, model = experiment.recipe, experiment.model
    if model.is_tiny:
        _plan_tiny(experiment)
        return
    analysis, ensemble = experiment.analysis, experiment.ensemble
    vmapped, size = experiment.machine.vmap or 1, _size(experiment)
    settings = planning.RunSettings(
        members=analysis.most_members(ensemble),
        records=size.records,
        keep=ensemble.keep,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        tokens=size.tokens,
        lora_rank=model.lora_rank,
        vmap=vmapped,
    )
    config = planning.checkpoint_config(model.model, bfloat16=model.bfloat16, remat=model.remat)
    plan.show(experiment.plan, planning.language_run(config, settings), vmapped=vmapped)


def _plan_tiny(experiment: LanguageExperiment) -> None:
    """Plans members that fit on one chip; a base that they start from is pretrained first."""
    topology = plan.prepared(experiment.plan.topology)
    dataset, task = prepare(experiment)
    flags = experiment.recipe, experiment.ensemble, experiment.analysis
    members = plan.Members.of(task, dataset, *flags)
    plan.show_members(topology, members, width=experiment.machine.vmap or None)


class _Size(NamedTuple):
    """How many records there are, and how many tokens the longest has."""

    records: int
    tokens: int


def _size(experiment: LanguageExperiment) -> _Size:
    """The most there can be where records or tokenizer are not at hand."""
    text = experiment.text
    counts = text.counts()
    if text.dataset == 'nq_open' and text.data_dir is None:
        if counts.unique is None:
            raise ValueError(
                '--unique=0 takes all records of nq_open: add --data_dir to count them'
            )
        return _Size(counts.records(0, copies=text.copies), text.max_length)
    try:
        records = language_data.prepare(text, experiment.model, seed=experiment.ensemble.of_data)
    except NotFetched:
        available = len(language_data.read(text)) if counts.unique is None else 0
        return _Size(counts.records(available, copies=text.copies), text.max_length)
    return _Size(len(records.dataset), language_data.longest(records, text.max_length))
