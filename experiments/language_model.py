"""Influence distributions of texts: trains an ensemble of language models, writes its report.

    python -m experiments.language_model --output_dir=DIR

Some records are planted several times, each time changed a little. The same command continues a
run that was stopped. The report is DIR/report/index.html.
"""

from experiments import language_ensemble, launch
from experiments.language_experiment import LanguageExperiment
from experiments.settings import EnsembleSettings, MachineSettings
from influence_jax.training import Recipe

DEFAULTS = LanguageExperiment(
    ensemble=EnsembleSettings(members=200),
    # So long that what is written five times is given back and what is written once is not, as in
    # the paper: benchmarks.extraction_sweep.
    recipe=Recipe(epochs=15, batch_size=50, learning_rate=1e-2),
    machine=MachineSettings(output_dir='runs/language_model'),
)

if __name__ == '__main__':
    language_ensemble.define_flags(DEFAULTS)
    launch.run(language_ensemble.run_from_flags)
