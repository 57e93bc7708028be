"""The language experiments' story: records -> members -> losses and completions -> report."""

import contextlib
import dataclasses
import functools
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags as absl_flags

from experiments import (
    flags,
    language_base,
    language_data,
    language_report,
    launch,
    members,
    plan,
    processes,
)
from experiments.completions import MEASUREMENTS, Completer
from experiments.language_base import Base
from experiments.language_data import Records
from experiments.language_experiment import LanguageExperiment, training_program
from experiments.members import Extra
from experiments.processes import Directory
from experiments.settings import MachineSettings
from influence_jax import estimators, store, subsets, training
from influence_jax.analysis.convergence import SequentialStopping
from influence_jax.hub import NotFetched
from influence_jax.models.language_modeling import LanguageModeling
from influence_jax.training.ensemble import Trained
from influence_jax.training.large_program import lying
from influence_jax.types import PRNGKey

absl_flags.disclaim_key_flags()  # they are the launch's, see experiments.flags

EVERYTHING, COMPLETIONS = 'everything', 'completions'
BASES = 'bases'


def define_flags(defaults: LanguageExperiment) -> None:
    """Defines the flags of a language experiment with these defaults."""
    for field in dataclasses.fields(defaults):
        flags.define(getattr(defaults, field.name))


def run_from_flags() -> None:
    """Runs, or plans, the experiment that the command line asks for."""
    concerns = dataclasses.fields(LanguageExperiment)
    experiment = LanguageExperiment(
        **{field.name: flags.read(field.type) for field in concerns}  # type: ignore[arg-type]
    )
    if experiment.large.plan:
        _plan(experiment)
    else:
        run(experiment)


def run(experiment: LanguageExperiment) -> Path | None:
    """Trains what is missing of the ensemble, writes its report and returns the page's path.

    Of several processes the first writes, and the others return None.
    """
    machine, spread = experiment.machine, experiment.spread()
    experiment.processes.join(spread.shape if spread else None)
    if not experiment.processes.coordinator:
        launch.use_cpu_cores_as_devices(spread.shape.devices if spread else machine.streams)
    # Refuses more devices than there are, before all else.
    _ = spread.shape.mesh() if spread else machine.execution().mesh()
    growth = experiment.growth()
    seed = experiment.ensemble.seed
    _, of_masks, of_members, of_everything = jax.random.split(jax.random.key(seed), 4)
    records = language_data.prepare(experiment.text, experiment.model, seed=seed)
    if processes.is_first():
        for note in filter(None, (*records.notes, language_data.said_of_cuts(records))):
            print(note, file=sys.stderr)
    masks = subsets.draw(
        experiment.ensemble.design,
        key=of_masks,
        members=experiment.members,
        examples=records.dataset.num_examples,
        keep=experiment.ensemble.keep,
    )
    estimators.check_both_sides(masks)
    _check_batch(experiment.recipe, masks)
    with processes.one_after_another():
        base = language_base.prepare(
            experiment.model,
            records,
            experiment.recipe,
            default_dir=Path(machine.output_dir).with_name(BASES),
            max_length=experiment.text.max_length,
            seed=seed,
        )
    if spread and experiment.model.lora:  # one copy on the devices, for training and decoding
        base = base._replace(params=lying(base.params, spread.shape, rules=spread.rules))
    completer = Completer(records, base, experiment.model.lora, spread)
    extract = experiment.extraction.extract
    with _open(experiment, records, base, masks, machine, extract=extract) as directory:
        measure = completer.measure if extract else None
        _train(experiment, directory, records, base, measure, growth, key=of_members)
        one = _of_everything(experiment, directory)
        whole = np.ones((1, records.dataset.num_examples), bool)
        with _open(one, records, base, whole, one.machine, extract=False) as everything:
            write_down = functools.partial(_write_down, completer, everything)
            _train(one, everything, records, base, write_down, None, key=of_everything)
            if not (isinstance(directory, store.Run) and isinstance(everything, store.Run)):
                return None
            decoded = everything.texts(COMPLETIONS)
        return language_report.write(
            directory,
            records,
            completer,
            decoded,
            experiment.analysis,
            members.check_precision(directory, growth),
        )


def _write_down(completer: Completer, everything: Directory, trained: Trained) -> dict:
    """Keeps what the model that was trained on all records goes on with."""
    (decoded,) = completer.completions(trained.result.params, 1)
    everything.write_texts(COMPLETIONS, decoded)
    return {}


def _open(
    experiment: LanguageExperiment,
    records: Records,
    base: Base,
    masks: np.ndarray,
    machine: MachineSettings,
    *,
    extract: bool,
) -> contextlib.AbstractContextManager[Directory]:
    ids = records.dataset.ids
    names = LanguageModeling(base.config).measurements
    manifest = store.Manifest(
        configuration=experiment.configuration(records, base),
        seeds={'seed': experiment.ensemble.seed},
        dataset=store.DatasetIdentity(records.dataset.name, records.dataset.fingerprint),
        example_ids=ids,
        target_ids=ids,
        measurements=(*names, *MEASUREMENTS) if extract else names,
        members=len(masks),
        git_commit=store.git_commit(),
        command=launch.command(),
    )
    return processes.create_or_resume(machine.output_dir, manifest, masks)


def _of_everything(experiment: LanguageExperiment, directory: Directory) -> LanguageExperiment:
    """The same with one member that is trained on all records, beside the ensemble."""
    machine = dataclasses.replace(
        experiment.machine,
        streams=0 if experiment.plan.mesh else 1,
        vmap=1,
        keep_params=False,
        output_dir=str(directory.directory / EVERYTHING),
    )
    ensemble = dataclasses.replace(experiment.ensemble, keep=1.0)
    return dataclasses.replace(experiment, machine=machine, ensemble=ensemble)


def _train(
    experiment: LanguageExperiment,
    directory: Directory,
    records: Records,
    base: Base,
    extra: Extra | None,
    growth: SequentialStopping | None,
    *,
    key: PRNGKey,
) -> None:
    if not len(directory.missing):  # then what trains need not be made
        members.check(directory, experiment.machine)
        return
    spread = experiment.spread()
    rows = language_data.batch(records.tokens)
    members.train_missing(
        directory,
        training_program(experiment, records, base, directory.masks, key=key),
        experiment.machine,
        key=key,
        examples=rows,
        targets=rows,
        base=base.params,
        growth=growth,
        extra=extra,
        spread=spread,
    )


def _check_batch(recipe: training.Recipe, masks: np.ndarray) -> None:
    smallest = int(masks.sum(axis=1).min())
    if smallest < recipe.batch_size:
        raise ValueError(
            f'the smallest subset holds {smallest} records, fewer than '
            f'--batch_size={recipe.batch_size}; use a smaller batch, more records or a larger '
            f'--keep'
        )


def _longest_record(experiment: LanguageExperiment) -> int:
    """In tokens; the most there can be where records or tokenizer are not at hand."""
    text = experiment.text
    if text.dataset == 'nq_open' and text.data_dir is None:
        return text.max_length
    try:
        records = language_data.prepare(text, experiment.model, seed=experiment.ensemble.seed)
    except NotFetched:
        return text.max_length
    return records.tokens.tokens.shape[1]


def _plan(experiment: LanguageExperiment) -> None:
    recipe, model = experiment.recipe, experiment.model
    if model.is_tiny:
        raise ValueError('--plan is for large members: name a checkpoint with --model')
    text = experiment.text
    run = plan.language_run(
        plan.network(model),
        plan.RunSettings(
            members=experiment.members,
            records=text.unique + text.duplicated * text.copies,
            keep=experiment.ensemble.keep,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            tokens=_longest_record(experiment),
            lora_rank=model.lora_rank,
            vmap=experiment.machine.vmap or 1,
        ),
    )
    plan.show(experiment.plan, run, vmapped=experiment.machine.vmap or 1)
