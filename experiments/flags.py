"""Flags from dataclasses: one flag a field, its help from the class's docstring."""

import dataclasses
import enum
import inspect
import re
import textwrap
import typing
from typing import Any, TypeVar

from absl import flags

from influence_jax.estimators import BUILT_IN, Estimator, by_name

Settings = TypeVar('Settings')

_ESTIMATORS = Estimator, Estimator | None

# So that the launch itself owns the flags, and its --help lists them.
flags.disclaim_key_flags()


def define(defaults: Any, into: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for each field of a dataclass, with the instance's values as defaults."""
    descriptions = _attributes(type(defaults))
    for field in dataclasses.fields(defaults):
        value = getattr(defaults, field.name)
        text = descriptions.get(field.name, '')  # none under python -OO
        if isinstance(value, bool):
            flags.DEFINE_bool(field.name, value, text, into)
        elif kind := _enum(field.type):
            flags.DEFINE_enum_class(field.name, value, kind, text, into)
        elif field.type in _ESTIMATORS:
            names = [one.name for one in BUILT_IN]
            default = value and value.name
            flags.DEFINE_enum(field.name, default, names, text, into, case_sensitive=False)
        elif field.type is float:  # before int: a default may be written 15
            flags.DEFINE_float(field.name, value, text, flag_values=into)
        elif isinstance(value, int) or field.type == int | None:
            flags.DEFINE_integer(field.name, value, text, flag_values=into)
        else:
            flags.DEFINE_string(field.name, value, text, into)


def read(settings: type[Settings], of: flags.FlagValues = flags.FLAGS) -> Settings:
    """The dataclass that the command line asks for."""
    assert dataclasses.is_dataclass(settings)
    values = {field.name: of[field.name].value for field in dataclasses.fields(settings)}
    for field in dataclasses.fields(settings):
        if field.type in _ESTIMATORS and values[field.name] is not None:
            values[field.name] = by_name(str(values[field.name]))
    return settings(**values)


def define_all(experiment: Any, into: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of every field of an experiment, itself a dataclass of settings."""
    for field in dataclasses.fields(experiment):
        define(getattr(experiment, field.name), into)


def read_all(experiment: type[Settings], of: flags.FlagValues = flags.FLAGS) -> Settings:
    """The experiment that the command line asks for."""
    assert dataclasses.is_dataclass(experiment)
    hints = typing.get_type_hints(experiment)
    return experiment(**{name: read(kind, of) for name, kind in hints.items()})


def _enum(kind: Any) -> type[enum.Enum] | None:
    """The enumeration that a field is of, None aside."""
    kinds = [one for one in typing.get_args(kind) or (kind,) if one is not type(None)]
    return kinds[0] if isinstance(kinds[0], type) and issubclass(kinds[0], enum.Enum) else None


def _attributes(settings: type) -> dict[str, str]:
    """Descriptions of the fields, from the 'Attributes:' parts of its and its bases' docstrings."""
    found: dict[str, str] = {}
    for kind in settings.__mro__:
        _, _, listing = inspect.cleandoc(vars(kind).get('__doc__') or '').partition('Attributes:\n')
        entries = re.split(r'^(\w+): ', textwrap.dedent(listing), flags=re.MULTILINE)[1:]
        for name, text in zip(entries[::2], entries[1::2], strict=True):
            found.setdefault(name, ' '.join(text.split()))
    return found
