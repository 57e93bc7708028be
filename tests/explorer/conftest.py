"""Results of a planted ensemble, with its tensors, and as a run."""

import json
import shutil

import pytest
from planted import HOSTILE, Ensemble, write_run

from influence_jax import report
from influence_jax.estimators import difference_in_means
from influence_jax.explorer import Site, open_results
from influence_jax.report import KeptTensors


@pytest.fixture(scope='session')
def ensemble():
    return Ensemble()


@pytest.fixture(scope='session')
def results(ensemble):
    return report.gather(ensemble.run, title=HOSTILE, estimator=difference_in_means)


@pytest.fixture(scope='session')
def planted_run(tmp_path_factory, results, ensemble):
    """A run directory with its report."""
    return write_run(tmp_path_factory.mktemp('run') / 'planted', ensemble.run, results)


@pytest.fixture(scope='session')
def stored(tmp_path_factory, results, ensemble):
    """A report directory with its tensors, to be read."""
    directory = tmp_path_factory.mktemp('stored')
    results.save(directory)
    KeptTensors.of(ensemble.run).save(directory)
    return directory


@pytest.fixture
def saved(tmp_path, stored):
    """The same, to be changed."""
    return shutil.copytree(stored, tmp_path / 'saved')


@pytest.fixture(scope='session')
def site(stored):
    """All documents of the stored results."""
    return Site([open_results(stored)])


@pytest.fixture
def document(site):
    """Reads a document by its address."""
    return lambda address: json.loads(site.get(address))
