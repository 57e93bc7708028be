"""The paper's own setting (arXiv 2506.20481): GPT-Neo 1.3B fine-tuned on NQ-open, M = 1,000.

    python -m experiments.nq_gpt_neo --data_dir=DIR --mesh=2,4,1 --output_dir=DIR
    python -m experiments.nq_gpt_neo --plan --topology=v5e:4x4

The GPUs or TPUs of one host train it or, with --coordinator, those of several, each of which is
given this command; --plan says whether a slice can, on any machine. What we could read of the paper
does not state the rest of the optimiser: it is that of all launches here (--warmup, --weight_decay,
--b1, --b2).
"""

from experiments import language_ensemble, launch
from experiments.language_ensemble import LanguageExperiment
from experiments.language_settings import LargeSettings, ModelSettings, TextSettings
from experiments.settings import EnsembleSettings, MachineSettings
from influence_jax.training import Recipe

PAPER = LanguageExperiment(
    text=TextSettings(dataset='nq_open'),
    ensemble=EnsembleSettings(members=1000),
    model=ModelSettings(model='EleutherAI/gpt-neo-1.3B', bfloat16=True, remat=True),
    recipe=Recipe(epochs=3, batch_size=50, learning_rate=2e-4),
    machine=MachineSettings(output_dir='runs/nq_gpt_neo'),
    large=LargeSettings(checkpoint_steps=15),  # of the 45 that a member takes
)

if __name__ == '__main__':
    launch.main(language_ensemble.run, PAPER)
