"""Every field of the settings is a flag: described, and its value arrives."""

import dataclasses
import enum

import pytest
from absl import flags as absl_flags

from experiments import flags
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    LabelSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax.estimators import BUILT_IN, Estimator
from influence_jax.training import ComputeDtype, Recipe

ALL = [
    DataSettings,
    EnsembleSettings,
    NetworkSettings,
    Recipe,
    MachineSettings,
    AnalysisSettings,
    PlantingSettings,
    LabelSettings,
]


@pytest.fixture
def parse():
    """Parses a command line after the settings' flags were defined, with these defaults."""
    before = set(absl_flags.FLAGS)

    def parse(*arguments, defaults=()):
        for instance in defaults or [settings() for settings in ALL]:
            flags.define(instance)
        absl_flags.FLAGS(['launch', *arguments])

    yield parse
    for name in set(absl_flags.FLAGS) - before:
        delattr(absl_flags.FLAGS, name)
    absl_flags.FLAGS.unparse_flags()


def _changed(value, field):
    if field.name == 'attribution':  # --assisted needs one
        return 'dot,ekfac'
    if isinstance(value, bool):
        return not value
    if isinstance(value, Estimator):
        return next(other for other in reversed(BUILT_IN) if other is not value)
    if isinstance(value, enum.Enum):
        return next(other for other in reversed(type(value)) if other is not value)
    if isinstance(value, int) or field.type == int | None:
        return (value or 0) + 8
    if isinstance(value, float):
        return value / 2 or 0.25
    return 'somewhere else'


@pytest.mark.parametrize('settings', ALL)
def test_every_field_is_described(settings):
    descriptions = flags._attributes(settings)
    assert list(descriptions) == [field.name for field in dataclasses.fields(settings)]
    for text in descriptions.values():
        assert len(text) > 10
        assert text.endswith('.')
        assert '\n' not in text


def test_defaults_arrive(parse):
    parse()
    assert [flags.read(settings) for settings in ALL] == [settings() for settings in ALL]


def test_values_arrive(parse):
    changed = [
        settings(
            **{
                f.name: _changed(getattr(settings(), f.name), f)
                for f in dataclasses.fields(settings)
            }
        )
        for settings in ALL
    ]
    arguments = []
    for instance in changed:
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            text = value.value if isinstance(value, enum.Enum) else str(value).lower()
            if isinstance(value, Estimator):
                text = value.name.upper()  # as an enumeration's names may be written
            arguments.append(f'--{field.name}={text}')
    parse(*arguments)
    assert [flags.read(type(instance)) for instance in changed] == changed


def test_a_launchs_own_defaults(parse):
    parse(defaults=[EnsembleSettings(members=1000), Recipe(epochs=20)])
    assert flags.read(EnsembleSettings).members == 1000
    assert flags.read(Recipe) == Recipe(epochs=20.0)


def test_a_fraction_of_an_epoch_though_the_default_is_whole(parse):
    parse('--epochs=2.5', defaults=[Recipe(epochs=20)])
    assert flags.read(Recipe).epochs == 2.5


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [((), None), (('--compute_dtype=bfloat16',), ComputeDtype.BFLOAT16)],
)
def test_a_choice_that_may_be_left_open(parse, arguments, expected):
    parse(*arguments, defaults=[Recipe(compute_dtype=None)])
    assert flags.read(Recipe).compute_dtype is expected


@pytest.mark.parametrize('wrong', ['--members=many', '--design=odd', '--keep=half', '--nothing=1'])
def test_wrong_values_are_refused(parse, wrong):
    with pytest.raises(absl_flags.Error):
        parse(wrong)
