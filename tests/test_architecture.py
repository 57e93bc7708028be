"""What holds of the package as a whole: its public names, its imports, what no module does."""

import ast
import importlib
import operator
import pkgutil
import types
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import influence_jax

ROOT = Path(influence_jax.__file__).parent
SOURCES = sorted(ROOT.rglob('*.py'))

HELPERS = {
    'compilation_cache',
    'files',
    'formatting',
    'hub',
    'json_files',
    'resources',
    'threads',
    'text',
    'trees',
    'types',
}
"""Import nothing of the package but one another; anybody may import them."""

ALLOWED = {
    'subsets': set(),
    'data': set(),
    'kernels': set(),
    'models': {'kernels'},
    'store': set(),
    'training': set(),
    'progress': set(),
    'estimators': {'kernels'},
    # A task says how it is trained, and what the store keeps of it for reports.
    'tasks': {'data', 'models', 'training', 'store'},
    'attribution': {'data', 'estimators', 'run', 'tasks', 'training'},
    'analysis': {'data', 'estimators'},
    'report': {'analysis', 'data', 'estimators', 'store'},
    'explorer': {'analysis', 'estimators', 'report', 'store'},
    'tensors': {'data', 'estimators', 'report', 'store'},
    # Reads models, and keeps what it computes beside a report.
    'tokens': {
        'analysis',
        'attribution',
        'data',
        'progress',
        'report',
        'run',
        'store',
        'tasks',
        'training',
    },
    'interchange': {'data', 'estimators', 'report', 'store', 'tensors'},
    'planning': {'models', 'tasks', 'training'},
    # Reads models, trains and keeps scores, of which analysis knows nothing.
    'judging': {
        'analysis',
        'attribution',
        'data',
        'ensemble',
        'estimators',
        'progress',
        'run',
        'store',
        'training',
    },
    'notebook': {'estimators'},
    # Reports import it nowhere, so what it exports may use what they write with.
    'run': {'notebook', 'data', 'estimators', 'interchange', 'store', 'tasks', 'training'},
    'ensemble': {
        'analysis',
        'data',
        'estimators',
        'kernels',
        'progress',
        'run',
        'store',
        'subsets',
        'tasks',
        'training',
    },
}
"""Of each part of the package, which others it may import besides the helpers."""

PUBLIC = (
    'Dataset',
    'Dataset.from_jsonl',
    'Dataset.from_npz',
    'Recipe',
    'Run',
    'open_run',
    'train_ensemble',
    'Run.column',
    'Run.complete',
    'Run.influence',
    'Run.measurement',
    'Run.params',
    'Run.status',
    'Run.summary',
    'Run.task',
    'Run.to_parquet',
    'Run.to_xarray',
    'Run.__getitem__',
    'analysis.convergence',
    'analysis.duplicates',
    'analysis.membership',
    'analysis.self_influence',
    'analysis.top1_margin',
    'estimators.adjusted',
    'estimators.difference_in_means',
    'estimators.lasso',
    'estimators.ridge',
    'estimators.summarize',
    'report.write',
    'store.open_run',
    'subsets.draw',
    'tasks.CausalLM',
    'tasks.Classification',
    'tasks.Regression',
)


def part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix('').parts[0]


def imported(path: Path) -> set[str]:
    """Full names of the modules, or of names within them, that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno} imports relatively'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


@pytest.mark.parametrize('name', PUBLIC)
def test_public_names_are_there(name):
    assert operator.attrgetter(name)(influence_jax) is not None


def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / '__init__.py').read_text(encoding='utf-8'))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {n: f'influence_jax.{where}' for n, where in influence_jax._NAMES.items()}
    for name in [*influence_jax._SUBPACKAGES, *influence_jax._NAMES]:
        assert name in dir(influence_jax)
        assert getattr(influence_jax, name) is not None
    with pytest.raises(AttributeError, match='nonsense'):
        _ = influence_jax.nonsense


WRONG_CALLS = (
    lambda: influence_jax.estimators.difference_in_means(np.ones((4, 3), bool), np.ones(4)),
    lambda: influence_jax.estimators.difference_in_means(np.ones((4, 3), bool), np.ones((5, 3))),
    lambda: influence_jax.Recipe(epochs='12'),
)
"""A wrong rank, axes that disagree, a wrong type; the code itself refuses the first two."""


@pytest.mark.parametrize('call', WRONG_CALLS)
def test_annotations_are_checked_in_tests(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


@pytest.mark.unchecked
@pytest.mark.parametrize('call', WRONG_CALLS[:2])
def test_what_is_marked_is_not_checked(call):
    with pytest.raises(ValueError, match='losses'):
        call()


def test_imports_point_backwards_along_the_flow():
    edges = {
        (part(path), name.split('.')[1])
        for path in SOURCES
        for name in imported(path)
        if name.startswith('influence_jax.')
    }
    edges = {(a, b) for a, b in edges if a not in {b, '__init__'}}
    from_helpers = {(a, b) for a, b in edges if a in HELPERS}
    assert {b for _, b in from_helpers} <= HELPERS
    assert {(a, b) for a, b in edges - from_helpers if b not in HELPERS} == {
        (a, b) for a, others in ALLOWED.items() for b in others
    }


def test_no_module_is_a_program():
    """None imports a launch or reads flags, arguments or the environment; one alone prints."""
    found = []
    for path in SOURCES:
        found += [
            (path.name, name)
            for name in imported(path)
            if name.split('.')[0] in {'absl', 'argparse', 'benchmarks', 'experiments', 'tests'}
        ]
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            match node:
                case ast.Attribute(attr='argv' | 'environ' | 'getenv' as name):
                    found.append((path.name, name))
                case ast.Name(id='print'):
                    found.append((path.name, 'print'))
    # The progress callback for terminals, which a caller passes or not.
    assert found == [('progress.py', 'print')]


def test_no_name_of_a_package_hides_one_of_its_modules():
    hidden = []
    for package in (path.parent for path in SOURCES if path.name == '__init__.py'):
        name = '.'.join(('influence_jax', *package.relative_to(ROOT).parts))
        there = importlib.import_module(name)
        for module in pkgutil.iter_modules([str(package)]):
            found = getattr(there, module.name, None)
            if found is not None and not isinstance(found, types.ModuleType):
                hidden.append(f'{name}.{module.name}')
    assert not hidden
