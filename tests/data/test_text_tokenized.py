"""Records as one array: what each row holds, what is cut, what is refused."""

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from influence_jax.data import Dataset
from influence_jax.data.text import Tokenizer, encode, prompted
from influence_jax.data.text.tokenizer import train_byte_bpe

TOKENIZER = train_byte_bpe(['the theme of the thesis'], 262)
TEXT = st.text(max_size=12)


def dataset(*pairs):
    prompts, completions = zip(*pairs, strict=True)
    text = np.dtypes.StringDType()
    return Dataset(
        {'prompt': np.array(prompts, text), 'completion': np.array(completions, text)},
        ids=tuple(f'id-{i}' for i in range(len(pairs))),
    )


def test_a_record_is_prompt_completion_end_and_padding():
    tokens, lengths, answer_starts, cut, _ = encode(dataset(('Q:', ' ab'), ('', 'x')), TOKENIZER)
    byte = {c: TOKENIZER.encode(c)[0] for c in 'Q: abx'}
    end = TOKENIZER.end
    expected = [[*(byte[c] for c in 'Q: ab'), end], [byte['x'], end, end, end, end, end]]
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_array_equal(lengths, [6, 2])
    np.testing.assert_array_equal(answer_starts, [2, 0])
    assert not cut.any()
    assert [array.dtype.name for array in (tokens, lengths, answer_starts, cut)] == [
        'int32',
        'int32',
        'int32',
        'bool',
    ]


def test_a_prompts_tokens_do_not_depend_on_what_follows():
    # In one piece, 'th' + 'e' would merge across the border.
    assert TOKENIZER.encode('the') != TOKENIZER.encode('th') + TOKENIZER.encode('e')
    tokens, _, starts, _, _ = encode(dataset(('th', 'e'), ('th', 'is')), TOKENIZER)
    assert starts[0] == starts[1]
    np.testing.assert_array_equal(tokens[0, : starts[0]], tokens[1, : starts[1]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=4))
def test_rows_read_as_the_texts(pairs):
    records = encode(dataset(*pairs), TOKENIZER)
    assert records.tokens.shape == (len(pairs), records.lengths.max())
    for (prompt, completion), row, length, start in zip(pairs, *records[:3], strict=True):
        assert TOKENIZER.decode(row[:start]) == prompt
        assert TOKENIZER.decode(row[start : length - 1]) == completion
        assert (row[length - 1 :] == TOKENIZER.end).all()
        assert not (row[: length - 1] == TOKENIZER.end).any()


@settings(max_examples=50, deadline=None)
@example('\xa00', 2)
@given(st.text(min_size=1, max_size=20).filter(str.strip), st.integers(2, 30))
def test_long_records_keep_their_first_tokens(text, max_length):
    # Where white space alone is left of a longer one, it is refused.
    assume(TOKENIZER.decode(TOKENIZER.encode(text)[:max_length]).strip())
    records = encode(dataset(('', text)), TOKENIZER, max_length=max_length)
    whole = [*TOKENIZER.encode(text), TOKENIZER.end]
    assert records.cut[0] == (len(whole) > max_length)
    assert records.tokens[0].tolist() == whole[:max_length]
    assert records.lengths[0] == len(records.tokens[0])


def test_how_many_were_cut():
    pairs = [('', 'xyz'), ('', 'xy'), ('', 'xyzxyz'), ('', 'xyzx')]
    records = encode(dataset(*pairs), TOKENIZER, max_length=4)
    # Of the last, only the end did not fit.
    assert records.cut.tolist() == [False, False, True, True]
    assert TOKENIZER.end not in records.tokens[2:]


@pytest.mark.parametrize(
    ('pairs', 'max_length', 'message'),
    [
        (
            [('', 'x'), ('xyzx', ' y')],
            4,
            "record 'id-1' has nothing .* prompt alone takes 4 tokens",
        ),
        ([('', 'x')], 1, 'max_length=1 must be 2 or more'),
        ([('', 'x'), ('', ' \n'), ('a', '')], 4, r"record 'id-1' is empty: .*\(2 such records\)"),
    ],
)
def test_records_with_nothing_to_learn_from(pairs, max_length, message):
    with pytest.raises(ValueError, match=message) as caught:
        encode(dataset(*pairs), TOKENIZER, max_length=max_length)
    assert '\n' not in str(caught.value)


def test_an_answer_of_which_a_tokenizer_makes_nothing():
    backend = tokenizers.Tokenizer.from_str(TOKENIZER.backend.to_str())
    backend.normalizer = tokenizers.normalizers.Replace('?', '')
    with pytest.raises(ValueError, match=r"record 'id-1' has nothing .* makes no token of '\?'"):
        encode(dataset(('', 'x'), ('who', '?')), Tokenizer(backend, TOKENIZER.end))


def test_one_token_of_the_answer_is_enough():
    records = encode(dataset(('xyz', 'yz')), TOKENIZER, max_length=4)
    assert (records.lengths[0], records.answer_starts[0], records.cut[0]) == (4, 3, True)


def test_records_of_which_nothing_is_left_are_counted():
    blank = 'x' + ' ' * 30 + 'y'
    encode(dataset(('Q:', blank[1:])), TOKENIZER, max_length=60)
    with pytest.raises(ValueError, match=r"'id-0' has .* its completion is white space; allow"):
        encode(dataset(('Q:', blank[1:]), ('Q:', blank)), TOKENIZER, max_length=8)
    message = r"'id-0' has .* prompt alone takes 9 tokens .* \(2 such records of 3\); allow"
    with pytest.raises(ValueError, match=message):
        encode(dataset(('Q' * 9, 'a'), ('Q:', 'b'), ('Q:', blank[1:])), TOKENIZER, max_length=8)


def test_a_model_is_prompted_with_the_prompt_or_the_first_half():
    source = dataset(('Q:', ' ab'), ('', 'xyzxyz'), ('', 'x'), ('xy', 'zxyzx'))
    records = encode(source, TOKENIZER, max_length=6)
    assert records.cut.tolist() == [False, True, False, True]
    assert records.prompt_lengths.tolist() == [2, 2, 0, 2]
    prompts, continuations = prompted(source, records, TOKENIZER)
    # What is cut goes on only as far as it is read.
    assert list(zip(prompts, continuations, strict=True)) == [
        ('Q:', ' ab'), ('xy', 'zxyz'), ('', 'x'), ('xy', 'zxyz'),
    ]  # fmt: skip
    assert records.longest_continuation == 4  # ' ab' and the end
    assert records.positions == 6
    assert records.truncation_note == '2 of 4 records are cut to 6 tokens'
    assert encode(source, TOKENIZER).truncation_note == ''


def test_a_text_is_not_halved_where_only_white_space_would_follow():
    records = encode(dataset(('', 'x   '), ('', 'xxx ')), TOKENIZER)
    assert records.prompt_lengths.tolist() == [0, 2]


def test_a_dataset_that_is_not_of_texts_is_refused():
    with pytest.raises(ValueError, match=r"no array 'prompt'.* x float64 \[2\]"):
        encode(Dataset({'x': np.zeros(2)}), TOKENIZER)
