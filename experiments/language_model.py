"""Influence distributions of texts: trains an ensemble of language models, writes its report.

    python -m experiments.language_model --output_dir=DIR

Near-duplicates of some of the embedded records are injected; --dataset=FILE.jsonl is used as it is.
The same command continues a run that was stopped.
The report is DIR/report/index.html.
"""

from experiments import language_ensemble, launch
from experiments.language_ensemble import LanguageExperiment
from experiments.settings import EnsembleSettings, MachineSettings
from influence_jax.training import Recipe

DEFAULTS = LanguageExperiment(
    ensemble=EnsembleSettings(members=200),
    # So long that what is written five times is extracted and what is written once is not, as in
    # the paper: benchmarks.extraction_sweep.
    recipe=Recipe(epochs=15, batch_size=50, learning_rate=1e-2),
    machine=MachineSettings(output_dir='runs/language_model'),
)

if __name__ == '__main__':
    launch.main(language_ensemble.run, DEFAULTS)
