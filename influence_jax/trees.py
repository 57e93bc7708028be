"""Pytrees of arrays by the paths of their leaves, such as `layers/attention/query`."""

from collections.abc import Callable
from typing import Any

import jax


def path_name(path: tuple) -> str:
    """Returns `layers/mlp/up` for a leaf's path; of an `nnx.Param`, not of its value."""
    if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == 'value':
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator='/')


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their paths, in the order of `jax.tree.leaves`."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(change: Callable[[str, Any], Any], tree: Any) -> Any:
    """Returns the same tree with `change(path, leaf)` in the place of every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: change(path_name(path), leaf), tree)


def module_of(path: str) -> str:
    """Returns the path of what a leaf belongs to; its own where that is the whole tree."""
    return path.rpartition('/')[0] or path


def described(tree: Any) -> dict[str, str]:
    """Returns each leaf's type and shape by its path, such as `float32[64, 10]`."""
    return {name: f'{leaf.dtype}{list(leaf.shape)}' for name, leaf in named(tree).items()}
