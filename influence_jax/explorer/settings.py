"""How the settings of two runs differ, a line for each."""

from collections.abc import Iterator, Mapping
from typing import Any

from influence_jax.explorer import encoding
from influence_jax.store import Manifest

_MOST = 24


def differing_settings(first: Manifest | None, second: Manifest | None) -> list[str]:
    """Returns in what dataset, seeds and configuration (recipe, repeats, ...) differ.

    Args:
        first: what the first run is; None of a report alone, of which nothing is known.
        second: what the second is.
    """
    if first is None or second is None:
        which = {
            (True, False): 'The first is a report',
            (False, True): 'The second is a report',
            (True, True): 'Both are reports',
        }[first is None, second is None]
        return [f'{which} without a run: whether dataset and recipe are the same is not known.']
    sides = [dict(_settings(manifest)) for manifest in (first, second)]
    found = [
        encoding.prose(
            f'{name}: {_text(sides[0], name)} in the first, {_text(sides[1], name)} in the second'
        )
        for name in dict.fromkeys([*sides[0], *sides[1]])
        if _text(sides[0], name) != _text(sides[1], name)
    ]
    more = len(found) - _MOST
    return [*found[:_MOST], *([f'and {more:,} more settings'] if more > 0 else [])]


def _settings(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    yield 'dataset', f'{manifest.dataset.name}, sha256 {manifest.dataset.fingerprint[:16]}'
    yield from _leaves('', manifest.configuration)
    yield from (
        (f'seed of {name}' if name != 'seed' else name, of) for name, of in manifest.seeds.items()
    )


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the settings below a name: of {'recipe': {'epochs': 12}} ('recipe.epochs', 12)."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, part in value.items():
        yield from _leaves(f'{path}.{name}' if path else name, part)


def _text(settings: Mapping[str, Any], name: str) -> str:
    return f'{settings[name]!s:.80}' if name in settings else 'not set'
