"""`data.text.load`: which loader a name on the command line means."""

import pytest

from influence_jax.data import text


def test_wordnet():
    assert text.load('wordnet').name == 'wordnet'


def test_jsonl_by_its_path(tmp_path):
    path = tmp_path / 'own.jsonl'
    path.write_text('{"text": "a", "id": "one"}\n')
    assert text.load(str(path)).ids == ('one',)


def test_nq_open_takes_the_data_dir(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'NQ-open: nothing of it in {tmp_path}'):
        text.load('nq_open', data_dir=tmp_path)


@pytest.mark.parametrize('source', ['nq', '', 'texts.txt', 'WordNet'])
def test_unknown_names_list_the_choices(source):
    with pytest.raises(ValueError, match=r'choose wordnet, nq_open, or the path of a \.jsonl file'):
        text.load(source)


@pytest.mark.parametrize('source', ['wordnet', 'own.jsonl'])
def test_a_data_dir_that_would_be_ignored_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match='takes no data_dir'):
        text.load(source, data_dir=tmp_path)
