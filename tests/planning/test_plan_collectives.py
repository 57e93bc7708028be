"""Groups of devices in XLA's three notations, and which of them cross members."""

import pytest

from influence_jax.planning.collectives import groups, pairs, read

ROWS = [(0, 1, 2, 3), (4, 5, 6, 7)]
COLUMNS = [(0, 4), (1, 5), (2, 6), (3, 7)]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('{{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true', ROWS),
        ('{{0,4},{1,5},{2,6},{3,7}}', COLUMNS),
        ('{}, to_apply=%add', [tuple(range(8))]),
        ('[2,4]<=[8], dimensions={0}', ROWS),
        ('[1,8]<=[8]', [tuple(range(8))]),
        ('[4,2]<=[2,4]T(1,0), dimensions={0}', COLUMNS),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}", ROWS),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", COLUMNS),
        ("mesh['a'=2,'b'=2,'c'=2] {'b','c'}, x={}", ROWS),
        ("mesh['a'=2,'b'=2,'c'=2] {'a', 'c'}", [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ("mesh['x'=8] {'x'}", [tuple(range(8))]),
    ],
)
def test_groups(text, expected):
    assert groups(text, 8) == expected


@pytest.mark.parametrize(
    'text',
    [
        "mesh['a'=8] {'a':(2)4}",
        "mesh['a'=8] {'b'}",
        "mesh['a'=4] {'a'}",
        'something new',
        '',
        '{{0}}',  # of the only replica
        '{{}}',
        '{{0,1,2,3},{4,5,6}}',
        '{{0,1,2,3},{4,5,6,7},{0}}',
        '{{0,1,2,3},{4,5,6,8}}',
        '[2,2]<=[4]',
        '[4,4]<=[16]',
        '[2,2]<=[8]',
        '[8]<=[8]',
        '[2,4]<=[2,4]T(0,0)',
        '[2,4]<=[2,4]T(0)',
    ],
)
def test_what_cannot_be_read_is_not_guessed(text):
    assert groups(text, 8) is None


def test_pairs_need_not_be_of_all_devices():
    assert pairs('{{0,1},{1,2}}, x={}', 8) == [(0, 1), (1, 2)]
    assert pairs('{}', 8) == []
    for text in ('{{0,8}}', '{{0,1,2}}', '{{0}}', '[2,4]<=[8]', ''):
        assert pairs(text, 8) is None


PROGRAM = """
%all-gather.1 = f32[8]{0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
%add = f32[8]{0} add(%all-gather.1, %all-gather.1)
%all-reduce = f32[8] all-reduce(%add), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%sum
%permute = f32[8]{0} collective-permute(%add), channel_id=2, source_target_pairs={{0,1},{5,6}}
%reduce = f32[8]{0} reduce-scatter(%add), replica_groups=mesh['m'=2,'d'=4] {'d'}, dimensions={0}
"""


def test_counting():
    assert read(PROGRAM, devices=8, devices_per_member=4) == (4, 0, 0)
    assert read(PROGRAM, devices=8, devices_per_member=2) == (4, 3, 0)
    assert read(PROGRAM, devices=8, devices_per_member=1) == (4, 4, 0)
    assert read('%r = f32[] all-reduce(%x), replica_groups=!', devices=8, devices_per_member=8) == (
        1,
        0,
        1,
    )


@pytest.mark.parametrize('quoted', ['%s', '"%s"'])
@pytest.mark.parametrize('instruction', ['send(x, token)', 'recv(token)'])
def test_sends_and_receives_are_counted(instruction, quoted):
    """They have no groups: their pairs are among the attributes of the frontend."""

    def counted(pairs):
        attribute = f'_xla_send_recv_source_target_pairs={quoted % pairs}'
        line = f'{instruction}, channel_id=1, frontend_attributes={{{attribute}}}'
        return read(line, devices=8, devices_per_member=4)

    assert counted('{{0,1},{4,5}}') == (1, 0, 0)
    assert counted('{{0,1},{3,4}}') == (1, 1, 0)
    assert counted('new') == (1, 0, 1)
