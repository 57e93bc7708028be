"""Built-in tasks are made again from what a run keeps of them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import influence_jax as ij
from influence_jax import tasks
from influence_jax.data import Dataset
from influence_jax.data.text import tokenizer as tokenizers
from influence_jax.data.text.tokenizer import Tokenizer, train_byte_bpe
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face, init
from influence_jax.models.lora import LoRA
from influence_jax.store import RunError
from influence_jax.tasks import CausalLM
from influence_jax.training import sequential

TEXTS = tuple(f'the {name} door is {name}' for name in ('red', 'green', 'blue', 'black'))
CONFIG = GPTNeoConfig(270, hidden=8, layers=1, heads=2, max_positions=32, remat=True)
TOKENIZER = train_byte_bpe(TEXTS, 270)
BASE = init(CONFIG, key=jax.random.key(3))


def _records():
    text = np.dtypes.StringDType()
    return Dataset(
        {'prompt': np.array([''] * 4, text), 'completion': np.array(TEXTS, text)}, name='doors'
    )


def _train(task, directory):
    return ij.train_ensemble(
        task,
        _records(),
        members=4,
        design=ij.Design.BALANCED,
        output_dir=directory,
        recipe=ij.Recipe(epochs=1, batch_size=1),
        executor=sequential(1),
    )


@pytest.mark.slow
def test_a_language_task_is_made_again_of_its_run(tmp_path):
    task = CausalLM(CONFIG, TOKENIZER, max_length=31)
    run = _train(task, tmp_path)
    again = ij.open_run(tmp_path).task()
    assert (again.config, again.max_length, again.extract) == (CONFIG, 31, False)
    assert again.params is None and again.lora is None
    assert again.tokenizer.fingerprint == TOKENIZER.fingerprint
    assert again.bind(_records()).description == task.bind(_records()).description
    _train(again, tmp_path)  # it continues the run
    path = tmp_path / 'texts' / 'tokenizer.json'
    path.write_text(path.read_text().replace('BPE', 'BPX'))
    with pytest.raises(RunError, match='tokenizer'):
        ij.open_run(tmp_path).task()
    assert run.task() is task


def test_a_base_is_asked_for_and_checked(tmp_path):
    task = CausalLM(CONFIG, TOKENIZER, BASE, params_identity='mine', lora=LoRA(2), max_length=31)
    _train(task, tmp_path / 'run')
    run = ij.open_run(tmp_path / 'run')
    with pytest.raises(ValueError, match=f'{task.checksum}.*base='):
        run.task()
    with pytest.raises(ValueError, match=f'members started from parameters of {task.checksum}'):
        run.task(base=init(CONFIG, key=jax.random.key(4)))
    hugging_face.save(tmp_path / 'base', CONFIG, BASE)
    for base in (BASE, tmp_path / 'base'):
        again = run.task(base=base)
        assert (again.lora, again.identity) == (LoRA(2), 'mine')
        assert again.bind(_records()).description == task.bind(_records()).description


@pytest.mark.parametrize(
    'change',
    [{'task': 'Other'}, {'network': {}}, {'tokenizer': {'end': 0, 'sha256': '0'}}, {'lora': 3}],
)
def test_a_description_of_something_else_is_refused(change):
    description = json.loads(json.dumps(tasks.describe(CausalLM(CONFIG, TOKENIZER)))) | change
    with pytest.raises(ValueError, match='cannot be made again'):
        tasks.recreate(description, read_text=tasks.texts_of(CausalLM(CONFIG, TOKENIZER)).get)


def test_a_subclass_is_not_built_in():
    class Mine(tasks.Classification):
        pass

    assert tasks.describe(tasks.Classification(ij.models.MLPConfig(4, 3))) is not None
    assert tasks.describe(Mine(ij.models.MLPConfig(4, 3))) is None
    assert tasks.describe(tasks.Classification(lambda rngs: None)) is None


def test_a_tokenizer_is_parsed_of_data_alone():
    text = TOKENIZER.backend.to_str()
    assert tokenizers.parse(text, end=0).fingerprint == TOKENIZER.fingerprint
    for wrong in ('{}', 'x', text.replace('"BPE"', '"Other"')):
        with pytest.raises(ValueError, match=r'.'):
            tokenizers.parse(wrong, end=0)


def test_records_are_tokenized_once(monkeypatch):
    encoded, encode = [], Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, 'encode', lambda self, text: encoded.append(text) or encode(self, text)
    )
    task, records = CausalLM(CONFIG, TOKENIZER, max_length=30), _records()
    task.notes(records)
    task.bind(records)
    dataclasses.replace(task, keep_completions=True).bind(records)
    assert sorted(encoded) == sorted(TEXTS)
