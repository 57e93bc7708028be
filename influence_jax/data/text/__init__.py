"""Files -> texts with stable ids -> tokens.

Loaders: `wordnet` (embedded), `nq_open`, `jsonl`. Beside them the tokenizers (`tokenizer`,
`byte_bpe`) and `tokenized` (records as one array).
"""

from pathlib import Path

from influence_jax.data.text import jsonl, nq_open, wordnet
from influence_jax.data.text.dataset import TextDataset
from influence_jax.data.text.tokenized import Tokenized, check_known, encode
from influence_jax.data.text.tokenizer import Tokenizer

__all__ = ['TextDataset', 'Tokenized', 'Tokenizer', 'check_known', 'encode', 'load']


def load(source: str, *, data_dir: Path | None = None) -> TextDataset:
    """Loads the text dataset that a command line names.

    Args:
      source: 'wordnet', 'nq_open' or the path of a `.jsonl` file.
      data_dir: where NQ-open is; see `nq_open.load`. The other sources take none.

    Raises:
      ValueError: no such source, a `data_dir` that it does not take, or wrong data.
      FileNotFoundError: the data are not there; the message says what to put where.
    """
    if source == 'nq_open':
        return nq_open.load(data_dir)
    if source != 'wordnet' and not source.endswith('.jsonl'):
        raise ValueError(
            f'unknown text dataset {source!r}: choose wordnet, nq_open, '
            'or the path of a .jsonl file'
        )
    if data_dir is not None:
        raise ValueError(f'dataset {source!r} takes no data_dir (given: {data_dir}); leave it out')
    return wordnet.load() if source == 'wordnet' else jsonl.load(source)
