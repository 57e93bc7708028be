"""Models of a finished run: those that were trained, on the examples that they were trained on."""

import jax
import numpy as np
import pytest

import influence_jax as ij
from influence_jax import attribution, tasks
from influence_jax.attribution import runs
from influence_jax.models.lora import LoRA
from influence_jax.models.mlp import MLPConfig
from influence_jax.tasks.language_modeling import AdapterModeling
from influence_jax.training import WarmStart
from influence_jax.types import MarginTask, OutputTask, SamplingTask


@pytest.fixture(scope='module')
def dataset():
    generator = np.random.default_rng(0)
    return ij.Dataset(
        {
            'input': generator.normal(size=(20, 4)).astype(np.float32),
            'label': generator.integers(0, 2, 20),
        }
    )


def trained(dataset, directory, **options):
    task = ij.tasks.Classification(MLPConfig(4, 2, (3,)))
    recipe = ij.Recipe(epochs=2, batch_size=4)
    return ij.train_ensemble(
        task, dataset, members=8, output_dir=directory, recipe=recipe, **options
    )


@pytest.mark.slow
def test_models_measure_what_is_on_record(dataset, tmp_path):
    run = trained(dataset, tmp_path / 'run', keep_params=True)
    models, records = attribution.read_run(run, dataset, (0, 5))
    for member, model in zip((0, 5), models, strict=True):
        np.testing.assert_array_equal(model.mask, run.masks[member])
        losses = jax.jit(model.task.measure)(model.variables, records.targets)['loss']
        np.testing.assert_allclose(losses, run['loss'][member], rtol=1e-4, atol=1e-6)
    scores = attribution.Gradients()(models, records)
    assert (scores.examples, scores.targets) == (20, 20)
    blocks = attribution.Records(records.examples, records.targets, block=7)
    np.testing.assert_allclose(
        attribution.Gradients()(models, blocks).read(np.arange(20)),
        scores.read(np.arange(20)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_run_without_parameters_says_which_flag_keeps_them(dataset, tmp_path):
    run = trained(dataset, tmp_path / 'run')
    with pytest.raises(FileNotFoundError, match='keep_params'):
        attribution.read_run(run, dataset)
    other = ij.Dataset({'input': np.ones((20, 4), np.float32), 'label': np.arange(20) % 2})
    with pytest.raises(ValueError, match='not the one'):
        attribution.read_run(run, other)


def test_texts_that_began_with_a_checkpoint_draw_labels(networks):
    model, records = networks['gpt_neo']()
    lora = LoRA(rank=2, alpha=2.0)
    for task in (WarmStart(model.task), AdapterModeling(model.task, lora)):
        problem = tasks.Problem(task, records, records, base=model.variables)
        engine = runs.engine_task(problem)
        assert isinstance(engine, SamplingTask)
        assert isinstance(engine, MarginTask)
        assert isinstance(engine, OutputTask)
