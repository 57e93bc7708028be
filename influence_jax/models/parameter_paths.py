"""Parameters by their paths, such as `layers/attention/query`."""

from collections.abc import Callable
from typing import Any

import jax

from influence_jax.types import Params


def named(params: Params) -> dict[str, Any]:
    """The leaves by their paths, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {_joined(path): leaf for path, leaf in leaves}


def map_named(change: Callable[[str, Any], Any], params: Params) -> Params:
    """The same tree with `change(path, leaf)` in the place of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: change(_joined(path), leaf), params)


def _joined(path: tuple) -> str:
    # Names are dictionary keys; below them an nnx.Param is a node of its own, without a name.
    return '/'.join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
