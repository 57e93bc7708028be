"""The manifest: to JSON and back, strictly; what differs between two."""

import json
from pathlib import Path

import numpy as np
import pytest

from influence_jax import store


def test_round_trip_of_awkward_values(changed_manifest):
    manifest = changed_manifest(
        configuration={'tuple': (1, 2), 'none': None, 'text': 'é"\n</script>', 'empty': {}},
        example_ids=('a b', '\u2028', '\ud800'),
        git_commit='f' * 40,
    )
    again = store.Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.configuration['tuple'] == [1, 2]
    assert manifest.differences(again) == ()


def test_a_fresh_manifest_says_when_and_with_what():
    manifest = store.Manifest(
        configuration={},
        seeds={},
        dataset=store.DatasetIdentity('d', 'f'),
        example_ids=('a',),
        target_ids=('a',),
        measurements=('loss',),
        members=1,
    )
    assert {'python', 'jax', 'flax', 'numpy', 'influence_jax'} <= manifest.versions.keys()
    assert manifest.created.endswith('+00:00')


def test_executor_task_and_units_are_kept_where_given_and_not_compared(changed_manifest):
    plain = changed_manifest()
    assert {'executor', 'task', 'units'}.isdisjoint(json.loads(plain.to_json()))
    full = changed_manifest(
        executor={'kind': 'vmapped', 'width': (4, 2)},
        task={'name': 'mlp'},
        units={'loss': 'points'},
    )
    again = store.Manifest.from_json(full.to_json())
    assert again == full
    assert again.executor == {'kind': 'vmapped', 'width': [4, 2]}
    assert plain.differences(full) == full.differences(plain) == ()
    assert full.identity == plain.identity


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'executor': 'vmapped'}, 'executor must map'),
        ({'units': {'loss': 1}}, 'units must be text'),
        ({'task': {'module': print}}, 'task must hold only'),
        ({'members': 0}, 'members must be'),
        ({'members': True}, 'members must be'),
        ({'seeds': {'a': 0.5}}, 'seeds'),
        ({'example_ids': ('a', 'b', 'a')}, "example_ids holds 'a' twice"),
        ({'example_ids': 'abc'}, 'example_ids must be'),
        ({'target_ids': ()}, 'target_ids is empty'),
        ({'measurements': ('../loss',)}, "'../loss'"),
        ({'configuration': {'path': Path('a')}}, 'configuration must hold only'),
        ({'configuration': {'rate': float('nan')}}, 'configuration must hold only'),
        ({'configuration': {'array': np.zeros(2)}}, 'configuration must hold only'),
        ({'command': 3}, 'must be text'),
    ],
)
def test_wrong_fields_are_refused(changed_manifest, changes, match, refused):
    with refused(match):
        changed_manifest(**changes)


def _edited(text, **changes):
    fields = json.loads(text) | changes
    return json.dumps({key: value for key, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ('edit', 'match'),
    [
        (lambda text: text[:-20], 'not JSON'),
        (lambda text: '', 'not JSON'),
        (lambda text: '[' * 100_000, 'not JSON'),
        (lambda text: b'\xff\xfe\xff', 'not JSON'),
        (lambda text: '[]', 'not a JSON object'),
        (lambda text: '{"name": "left-pad"}', 'no key "format"'),
        (lambda text: _edited(text, format=2), 'format 2'),
        (lambda text: _edited(text, members=...), r"lacks \['members'\]"),
        (lambda text: _edited(text, members='12'), 'members must be'),
        (lambda text: _edited(text, more=1), r"unknown keys \['more'\]"),
        (lambda text: _edited(text, dataset='clipart'), 'dataset must be'),
        (lambda text: _edited(text, dataset={'name': 'a'}), r"lacks \['fingerprint'\]"),
        (lambda text: _edited(text, dataset={'name': 'a', 'fingerprint': 1}), 'must be text'),
        (lambda text: _edited(text, measurements=['/etc/passwd']), 'letters'),
        (lambda text: _edited(text, measurements=[3]), 'measurements must be'),
        (lambda text: _edited(text, git_commit=3), 'must be text'),
        (lambda text: _edited(text, configuration=[]), 'configuration must map'),
        (lambda text: _edited(text, executor=[1]), 'executor must map'),
    ],
)
def test_bad_manifests_are_one_line(directory, manifest, masks, edit, match, one_line):
    path = directory / 'manifest.json'
    edited = edit(path.read_text())
    path.write_bytes(edited if isinstance(edited, bytes) else edited.encode())
    before = sorted(directory.rglob('*'))
    for call in (
        lambda: store.open_run(directory),
        lambda: store.create_or_resume(directory, manifest, masks),
    ):
        message = one_line(store.BadManifest, call)
        assert str(path) in message
        with pytest.raises(store.BadManifest, match=match):
            call()
    assert sorted(directory.rglob('*')) == before


def test_differences_tell_types_and_paths_apart(changed_manifest):
    def differences(old, new):
        return changed_manifest(configuration=old).differences(changed_manifest(configuration=new))

    assert differences({'a': 1}, {'a': True}) == ('configuration.a: 1 -> true',)
    assert differences({'a': 'x'}, {'a': None}) == ('configuration.a: "x" -> null',)
    assert len(differences({'a': {'b': 1}}, {'a.b': 1})) == 2
    assert differences({'a': {}}, {}) == (
        'configuration.a: {} -> absent',
        'configuration: absent -> {}',
    )
    assert differences({'a': [1, 2]}, {'a': (1, 2)}) == ()


def test_long_values_are_cut_to_where_they_differ(changed_manifest):
    ids = tuple(f'image-{i:05d}' for i in range(5000))
    other = (*ids[:4000], 'another', *ids[4001:])
    [difference] = changed_manifest(target_ids=ids).differences(changed_manifest(target_ids=other))
    assert difference.startswith('target_ids: ')
    old, new = difference.split(' -> ')
    assert 'image-04000' in old
    assert 'another' in new
    assert len(difference) < 200


def test_git_commit_is_a_commit_or_none():
    commit = store.git_commit()
    assert commit is None or len(commit.removesuffix('-dirty')) == 40
