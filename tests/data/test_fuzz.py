"""A few hundred of the cases of `benchmarks.fuzz`: nothing but a line of ValueError or OSError."""

import pytest

from benchmarks import fuzz

CASES = {
    'npy': 60,
    'npz': 60,
    'config.json': 60,
    'safetensors': 60,
    'safetensors index': 30,
    'tokenizer.json': 40,
    'jsonl': 60,
    'ids': 60,
    'features.json': 30,
    'CIFAR-10 binary': 2,
}


@pytest.mark.parametrize(('reader', 'count'), CASES.items(), ids=CASES.keys())
def test_no_file_escapes_its_reader(tmp_path, reader, count):
    kinds = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = fuzz.run_case(reader, 1, number, folder)
        assert outcome.kind in ('read', 'refused'), f'case {number}: {outcome.detail}'
        kinds.append(outcome.kind)
    # Cases that are all refused, or all read, would find nothing.
    assert reader == 'CIFAR-10 binary' or set(kinds) == {'read', 'refused'}


def test_a_case_is_a_function_of_its_number(tmp_path):
    contents = []
    for folder in (tmp_path / 'first', tmp_path / 'again'):
        folder.mkdir()
        fuzz.run_case('npz', 3, 17, folder)
        contents.append((folder / 'a.npz').read_bytes())
    assert contents[0] == contents[1]


def test_what_escapes_is_found(tmp_path, monkeypatch):
    def fail(error):
        def read(folder):
            raise error

        return fuzz.READERS['ids']._replace(read=read)

    for error, kind in (
        (KeyError('x'), 'escaped'),
        (KeyboardInterrupt(), 'escaped'),
        (ValueError('two\nlines'), 'no line'),
        (ValueError('\x1b[2J'), 'no line'),
        (ValueError('x' * 3_000), 'too long'),
        (ValueError('one line'), 'refused'),
    ):
        monkeypatch.setitem(fuzz.READERS, 'ids', fail(error))
        assert fuzz.run_case('ids', 0, 0, tmp_path).kind == kind
