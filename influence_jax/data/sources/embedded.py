"""The embedded defaults: 1,567 pieces of real clip art, and 4,000 glosses of WordNet.

The package's `embedded/README.md` gives their provenance and licenses.
"""

import dataclasses
import gzip
import importlib.resources

from influence_jax.data.dataset import Dataset
from influence_jax.data.sources import jsonl, npz

_FOLDER = importlib.resources.files('influence_jax.data') / 'embedded'
_CLIPART = (
    'Open Clip Art Library (public domain), from Debian openclipart-png 0.18; '
    'each picture centered on white and reduced to 32x32'
)
_WORDNET = (
    'WordNet 3.0 (Princeton University; permissive license), from Debian wordnet-base: '
    'first senses of nouns, the most frequent first'
)


def clipart() -> Dataset:
    """Returns the clip art: images 32x32 in color, of 9 classes.

    It has many natural near-duplicates (playing cards, road signs, maps): at a pixel RMS
    distance below 0.06 within a class, 132 of the 1,567 images have at least one.
    """
    with importlib.resources.as_file(_FOLDER / 'clipart.npz') as path:
        return dataclasses.replace(npz.load(path), provenance=_CLIPART)


def wordnet() -> Dataset:
    """Returns the glosses, as 'Q: what is dog? A:' and ' a member of the genus Canis ...'.

    One a lemma, of 5 to 25 words, ordered by the frequency of the sense; no gloss equals another
    up to a word. Ids are such as 'wordnet-dog'.
    """
    file = 'wordnet.jsonl.gz'
    content = gzip.decompress((_FOLDER / file).read_bytes())
    return jsonl.parse(content, where=file, name='wordnet', provenance=_WORDNET)
