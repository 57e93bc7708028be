"""Pytrees of arrays by the paths of their leaves, such as `layers/attention/query`."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax

Class = TypeVar('Class', bound=type)


def register_dataclass(cls: Class) -> Class:
    """Makes a dataclass a pytree of its fields, those of `metadata={'static': True}` fixed.

    As jax's function of that name does, but without `__init__`, and structures of different classes
    differ. By jax's (0.10) they are equal where the fixed fields are, and one class's compiled
    program may be run for another's.
    """
    fields = dataclasses.fields(cls)
    static = [field.name for field in fields if field.metadata.get('static')]
    data = [field.name for field in fields if not field.metadata.get('static')]

    def flattened(one: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(one, name)) for name in data]
        return children, tuple(getattr(one, name) for name in static)

    def of(fixed: tuple[Any, ...], children: Iterable[Any]) -> Any:
        one: Any = object.__new__(cls)  # what is not an array yet would not pass checks
        for name, value in zip([*data, *static], [*children, *fixed], strict=True):
            object.__setattr__(one, name, value)
        return one

    jax.tree_util.register_pytree_with_keys(cls, flattened, of)
    return cls


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
