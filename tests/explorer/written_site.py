"""A site of made-up documents, as many as wanted at once, some of them hostile or damaged."""

import io
from typing import Any

import numpy as np
from PIL import Image

from influence_jax.explorer import encoding
from influence_jax.explorer.columns import Column, MemberLosses
from influence_jax.explorer.site import Site, UnknownAddress

HOSTILE = (
    '<img src=x onerror="document.title=\'run\'">',
    '\u202ebackwards',
    "\"><script>document.title='run'</script>",
    'nul\x00 and {{ braces }}',
    'long ' * 4000,
)
"""Names of the first targets."""

DAMAGED = 9
"""The target whose document cannot be read."""

UNREADABLE = 11
"""The target whose tokens cannot be read."""

TOKENS = ('Who', ' painted', ' it', '\n', 'she', '<|endoftext|>')
"""Of the targets whose names are not hostile."""

VERDICTS = ('unique', 'near_duplicated', 'unlearned', 'not_memorized', 'uncertain')
CLASSES = ('cat', 'dog', '<b>bird</b>')
SHARD = 8
SIDE = 8


class WrittenSite(Site):
    """Documents of as many targets as examples: the same ones, or others."""

    def __init__(self, targets: int, *, noun: str = 'image', are_examples: bool = True) -> None:
        self.runs = []
        self.are_examples = are_examples
        rng = np.random.default_rng(0)
        self.count, self.noun = targets, noun
        self.names = [*HOSTILE, *(f'thing {t}' for t in range(len(HOSTILE), targets))][:targets]
        self.own = rng.exponential(1, targets).astype(np.float32) * 3e-4 + 1e-5
        self.errors = np.full(targets, 2e-5, np.float32)
        self.margin = rng.uniform(1, 9, targets).astype(np.float32)
        self.other = rng.permutation(targets)
        self.verdicts = rng.integers(0, len(VERDICTS), targets)
        self.labels = np.arange(targets) % len(CLASSES)

    def get(self, address: str) -> bytes:
        place, _, name = address.partition('/')
        if address in ('index.json', 'compare.json'):
            return encoding.dump(self.comparison() if place == 'compare.json' else self.index())
        if place not in ('0', '1'):
            raise UnknownAddress(address)
        kind, _, number = name.partition('.')[0].partition('/')
        if kind == 'sheets':
            return self.sheet()
        if number:
            first = int(number) * SHARD
            document = self.target if kind == 'targets' else self.example
            shown = range(first, min(first + SHARD, self.count))
            return encoding.dump([document(one) for one in shown])
        if kind not in ('run', 'targets', 'examples', *self.views()):
            raise UnknownAddress(address)
        return encoding.dump(getattr(self, kind)() if hasattr(self, kind) else self.views()[kind])

    def index(self) -> dict[str, Any]:
        runs = [{'name': name, 'title': f'Run {name}'} for name in ('first', 'second')]
        return {'version': 1, 'runs': runs, 'compared': True}

    def run(self) -> dict[str, Any]:
        def quantity(name: str, title: str, unit: str = '', error: str | None = None) -> Any:
            return {'name': name, 'title': title, 'unit': unit, 'error': error, 'help': title}

        quantities = [
            quantity('margin', 'Margin'),
            quantity('other_value', 'Strongest other', 'nats', 'other_value_error'),
            quantity('mean_loss', 'Mean loss', 'nats'),
        ]
        if self.are_examples:
            own = quantity('self_influence', 'Self-influence', 'nats', 'self_influence_error')
            quantities.insert(0, own)
        parts = (
            'distribution',
            'losses',
            'pairs',
            'membership',
            'clusters',
            'matrix',
            'convergence',
        )
        is_image = self.noun == 'image'
        return {
            'title': HOSTILE[0],
            'unit': 'nats',
            'noun': self.noun,
            'method': {'name': 'adjusted', 'title': 'Adjusted', 'description': 'A method.'},
            'members': 64,
            'examples': self.count,
            'targets': self.count,
            'shard': SHARD,
            'thumbnails': {'side': SIDE, 'per_sheet': 256, 'columns': 16} if is_image else None,
            'quantities': quantities,
            'verdicts': [{'name': name, 'title': name, 'help': 'A rule.'} for name in VERDICTS],
            'caveats': ['Members are few.'],
            'notes': [],
            'facts': [['members', '64']],
            'classes': list(CLASSES),
            'has': dict.fromkeys((*parts, 'leaderboard'), True) | {'attribution': ['gradients']},
            'tokens': {
                'members': 12,
                'scores': {
                    'method': 'gradients',
                    'description': 'A method.',
                    'member': 3,
                    'targets': 8,
                    'pairs': 24,
                },
            }
            if self.noun == 'record'
            else None,
            'table_columns': ['width', 'height'] if self.noun == 'example' else None,
            'z_threshold': 4.5,
        }

    def targets(self) -> dict[str, Any]:
        columns = {
            'self_influence': self.own,
            'self_influence_error': self.errors,
            'margin': self.margin,
            'other_value': self.own / self.margin,
            'other_value_error': self.errors,
            'mean_loss': self.own * 2,
        }
        if not self.are_examples:
            del columns['self_influence'], columns['self_influence_error']
        everyone = np.arange(self.count)
        return {
            'ids': [f'id-{t:05d}' for t in everyone],
            'names': self.names if self.are_examples else [f'test {t}' for t in everyone],
            'labels': encoding.integers(self.labels),
            'example': encoding.integers(everyone if self.are_examples else -1 + 0 * everyone),
            'other_stands_out': encoding.integers(everyone % 2),
            'strongest_other': encoding.integers(self.other),
            'verdict': encoding.integers(self.verdicts),
            'columns': {name: encoding.floats(values) for name, values in columns.items()},
        }

    def examples(self) -> dict[str, Any]:
        target = np.arange(self.count) if self.are_examples else np.full(self.count, -1)
        return {
            'ids': [f'id-{t:05d}' for t in range(self.count)],
            'names': self.names,
            'labels': encoding.integers(self.labels),
            'target': encoding.integers(target),
        }

    def target(self, t: int) -> dict[str, Any]:
        if t == DAMAGED:
            return {'error': 'the losses of this target are damaged: measure it again'}
        others = [(t + step) % self.count for step in range(1, 20)]
        column = [[i, 1e-4 / rank, 2e-5, int(rank < 4)] for rank, i in enumerate(others, 1)]
        column[0] += [5e-5, 4e-4, 8e-5]  # a significant pair
        losses = np.random.default_rng(t).normal(1, 0.2, 64).astype(np.float32)
        scores = [[i, 1 / rank] for rank, i in enumerate(others[:8], 1)]
        values = np.random.default_rng(t).normal(0, 3e-5, 2000).astype(np.float32)
        included = np.arange(64) % 2 == 1
        return {
            'target': t,
            'id': f'id-{t:05d}',
            'example': t if self.are_examples else -1,
            'self': [float(self.own[t]), 2e-5] if self.are_examples else None,
            'margin': float(self.margin[t]),
            'z_margin': 3.0,
            'effective_members': 60.0,
            'verdict': VERDICTS[self.verdicts[t]],
            'null_error': 2e-5,
            'z_threshold': 4.5,
            'influencers': {
                'positive': column,
                'negative': [[i, -value, error, 0] for i, value, error, _ in column[3:]],
            },
            'quantiles': [[0.1, -1e-5], [0.5, 0.0], [0.9, 1e-5]],
            'histogram': Column(values, values).histogram(2e-5),
            'losses': MemberLosses(losses, included if self.are_examples else None).document(
                exact=True
            ),
            'vulnerability': {
                'rate': 0.4,
                'low': 0.3,
                'high': 0.5,
                'false_alarms': 0.01,
                'false_positive_rate': 0.01,
                'auroc': 0.8,
                'auroc_error': 0.05,
                'at_risk': True,
                'attack': 'LiRA',
            },
            'tokens': self.tokens(t) if self.noun == 'record' else None,
            'note': None,
            'attribution': [
                {'method': 'gradients', 'unit': '', 'self': 1, 'margin': 2, 'influencers': scores}
            ],
        }

    def tokens(self, t: int) -> dict[str, Any] | None:
        """Of the first targets hostile ones; of one more than are shown; of one damaged."""
        if t == UNREADABLE:
            return {'error': 'the tokens of this run are damaged: repeat its command'}
        texts = ['Who', ' is', *HOSTILE, '\n', '<0xE2>'] if t < len(HOSTILE) else TOKENS
        texts = [encoding.token(text) for text in texts]
        count = len(texts)
        losses = [None, *(0.5 * k for k in range(1, count))]
        held = [None, *([0.25] * (count - 1))]
        errors = [None, *([0.01] * (count - 1))]
        return {
            'texts': texts,
            'more': 7 if t == len(HOSTILE) else 0,
            'answer_start': 2,
            'cut': t == len(HOSTILE) + 1,
            'included': 5 if self.are_examples else 0,
            'left_out': 7,
            'in': held if self.are_examples else [None] * count,
            'in_error': errors if self.are_examples else [None] * count,
            'out': losses,
            'out_error': errors,
            'scores': [[(t + 2) % self.count, [0, *(-1e-5 * k for k in range(1, count))]]]
            if t < 8
            else [],
        }

    def example(self, i: int) -> dict[str, Any]:
        is_text = self.noun == 'record'
        return {
            'example': i,
            'id': f'id-{i:05d}',
            'name': self.names[i],
            'label': CLASSES[i % len(CLASSES)],
            'change': 'a word' if i == 9 else '',
            'text': None,
            'prompt': f'who painted number {i} of them' if is_text else None,
            'completion': HOSTILE[2] if is_text else None,
            'row': [str(i), '<i>7</i>'] if self.noun == 'example' else None,
            'target': i if self.are_examples else -1,
            'outgoing': [[(i + step) % self.count, 1e-4, 2e-5, 1] for step in range(4)],
            'group': [i, (i + 1) % self.count],
        }

    def views(self) -> dict[str, Any]:
        size = min(self.count, 12)
        some = list(range(size))
        values = np.random.default_rng(1).normal(0, 1e-4, (size, size)).astype(np.float32)
        values[0, 1] = np.nan
        rates = np.linspace(0, 1, 50)
        cluster = {'examples': [0, 1, 2], 'size': 3, 'positions': [[0, 0], [1, 0.5], [0.2, 1]]}
        return {
            'clusters': {
                'total': 1,
                'near_duplicated': 2,
                'others': 1,
                'clusters': [cluster | {'edges': [[0, 1, 1e-4, 2e-5]]}],
            },
            'pairs': {
                'examples': encoding.integers(np.array([1, 2, 3])),
                'targets': encoding.integers(np.array([0, 17, 17])),
                'columns': {
                    name: encoding.floats(np.float32(column))
                    for name, column in {
                        'value': [4e-4, 3e-4, -2e-4],
                        'error': [2e-5, 2e-5, 2e-5],
                        'low': [3e-4, 1e-4, -3e-4],
                        'high': [5e-4, 5e-4, -1e-4],
                        'cross_fitted': [3e-4, 2e-4, -1e-4],
                        'log10_p': [-40.5, -12, -3],
                    }.items()
                },
                'total': 3,
                'complete': True,
                'level': 0.05,
                'tests': self.count**2,
            },
            'matrix': {
                'examples': some,
                'targets': some,
                'boundaries': [0, 3],
                'values': encoding.floats(values),
                'limit': 2e-4,
            },
            'convergence': {
                'members': [8, 16, 32],
                'agreement': {
                    'self_influence': [0.5, 0.7, 0.9],
                    'off_diagonal': [0.1, 0.2, 0.3],
                    'significant': [None, None, None],
                    'margin': [0.2, 0.3, 0.4],
                },
                'current': 64,
                'pairs': 40,
                'predicted': [
                    {
                        'members': members,
                        'reliability': {'self_influence': 0.9, 'off_diagonal': None},
                        'standard_error': 3e-5,
                        'self_standard_error': 2e-5,
                        'still_listed': min(members, 40),
                        'least_listed': 1e-3 / members,
                    }
                    for members in (20, 64, 500)
                ],
            },
            'membership': {
                'attacks': [
                    {
                        'name': 'lira',
                        'title': 'LiRA',
                        'fpr': encoding.floats(rates),
                        'tpr': encoding.floats(np.sqrt(rates)),
                        'auc': 0.8,
                        'auc_over_members': [0.7, 0.9],
                        'tpr_at': [[0.01, 0.1, 0.05, 0.2]],
                    }
                ],
                'notes': [],
            },
            'leaderboard': {
                'header': ['method', 'lds'],
                'rows': [['gradients', '0.31'], [HOSTILE[0], '0.52'], ['none', '']],
            },
        }

    def comparison(self) -> dict[str, Any]:
        everyone = encoding.integers(np.arange(self.count))
        columns = {
            'self_influence_0': self.own,
            'self_influence_1': self.own * 2,
            'self_influence_error_0': self.errors,
            'self_influence_error_1': self.errors,
            'difference': self.own,
            'error': self.errors,
            'z': self.own / self.errors,
        }
        moved = self.own > np.median(self.own)
        return {
            'runs': [0, 1],
            'ids': [f'id-{t:05d}' for t in range(self.count)],
            'target': [everyone, everyone],
            'columns': {name: encoding.floats(values) for name, values in columns.items()},
            'moved': {'self_influence': encoding.integers(moved)},
            'count': int(moved.sum()),
            'level': 0.05,
            'tested': True,
            'members': ['64 members', '8 masks, 8 members each'],
            'median_errors': {'self_influence': [2e-5, 1e-5], 'entry': [4e-5, None]},
            'pairs': self.compared_pairs(),
            'differences': [f'recipe.epochs: 12 in the first, {HOSTILE[0]} in the second'],
            'caveats': ['A caveat.'],
        }

    def compared_pairs(self) -> dict[str, Any]:
        """Six pairs: three in both, one in the first alone, two in the second alone."""
        places = [encoding.integers(np.arange(start, start + 6)) for start in (0, 6)]
        values = np.arange(6, 0, -1) * 1e-4
        missing = np.where(np.arange(6) == 4, np.nan, values)
        columns = {
            'value_0': missing,
            'error_0': missing / 10,
            'value_1': values * 2,
            'error_1': values / 10,
        }
        return {
            'both': 3,
            'first': 1,
            'second': 2,
            'examples': [places[0], places[0]],
            'targets': [places[1], places[1]],
            'listed': encoding.integers(np.array([0, 0, 1, 2, 2, 0])),
            'columns': {name: encoding.floats(column) for name, column in columns.items()},
        }

    def sheet(self) -> bytes:
        pixels = np.random.default_rng(2).integers(0, 255, (16 * SIDE, 16 * SIDE, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, 'PNG')
        return file.getvalue()
