"""The embedded default: 4,000 glosses of WordNet."""

import gzip
import importlib.resources

from influence_jax.data.text import jsonl
from influence_jax.data.text.dataset import TextDataset

_FILE = 'wordnet.jsonl.gz'
_PROVENANCE = (
    'WordNet 3.0 (Princeton University; permissive licence), from Debian wordnet-base: '
    'first senses of nouns, the most frequent first'
)


def load() -> TextDataset:
    """The glosses, as 'Q: what is dog? A:' and ' a member of the genus Canis ...'.

    One a lemma, of 5 to 25 words, ordered by the frequency of the sense; no gloss equals another
    up to a word. Ids are such as 'wordnet-dog'. The package's `embedded/README.md` tells their
    provenance and licence.
    """
    resource = importlib.resources.files('influence_jax.data') / 'embedded' / _FILE
    content = gzip.decompress(resource.read_bytes())
    return jsonl.parse(content, where=_FILE, name='wordnet', provenance=_PROVENANCE)
