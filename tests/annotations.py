"""Annotations checked by beartype, which makes each check once."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import beartype

_made: dict[tuple, Callable[..., Any]] = {}


def checked(function: FunctionType) -> Callable[..., Any]:
    """Checks what jaxtyping asks for: a function without a body, of the annotations of another.

    It asks anew whenever a function is defined within another, with annotations that are equal to
    none before, and to make a check takes a millisecond: more than half of the time of some tests.
    Here those are the same that read the same and are of functions of one name and signature.
    """
    hints = tuple((name, repr(hint)) for name, hint in function.__annotations__.items())
    key = function.__module__, function.__qualname__, function.__code__, hints
    if key not in _made:
        # An int passes for a float, as for type checkers (PEP 484).
        conf = beartype.BeartypeConf(is_pep484_tower=True)
        _made[key] = beartype.beartype(function, conf=conf)
    return _made[key]
