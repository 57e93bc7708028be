"""What models give back against how long they train: unique and near-duplicated records.

    python -m benchmarks.extraction_sweep --dataset=nq_open --data_dir=DIR [--lengths=5,10,20]

Flags are those of experiments.language_model. For each number of epochs a few models are trained
on all records; the table says what they know of them and what they complete correctly.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from absl import flags
from experiments.completions import Completer
from experiments.language_experiment import LanguageExperiment

from experiments import language_base, language_data, language_ensemble, language_experiment, launch
from experiments.flags import read
from experiments.language_model import DEFAULTS
from experiments.language_settings import ModelSettings, TextSettings
from experiments.settings import EnsembleSettings, MachineSettings
from influence_jax import training

_LENGTHS = flags.DEFINE_list('lengths', ['4', '6', '8', '10', '15', '20', '30'], 'epochs to try')
_MODELS = flags.DEFINE_integer('models', 2, 'models of each length')


def main() -> None:
    launch.use_cpu_cores_as_devices(0)
    settings, machine = read(ModelSettings), read(MachineSettings)
    seed = read(EnsembleSettings).seed
    records = language_data.prepare(read(TextSettings), settings, seed=seed)
    base = language_base.prepare(
        settings,
        records,
        read(training.Recipe),
        default_dir=Path(machine.output_dir).with_name(language_ensemble.BASES),
        max_length=read(TextSettings).max_length,
        seed=seed,
    )
    completer = Completer(records, base, settings.lora)
    rows = language_data.batch(records.tokens)
    duplicated = records.dataset.has_near_duplicate
    kinds = f'{"unique":>10}{"near-dup.":>10}'
    print(f'{"":8}{"answer loss":>20}{"BLEU":>20}{"":>8}{"exact match":>20}')
    print(f'{"epochs":8}{kinds}{kinds}{"ratio":>8}{kinds}')
    for epochs in map(float, _LENGTHS.value):
        experiment = LanguageExperiment(
            model=settings,
            ensemble=EnsembleSettings(keep=1.0),
            recipe=dataclasses.replace(read(training.Recipe), epochs=epochs),
        )
        masks = np.ones((_MODELS.value, records.dataset.num_examples), bool)
        key = jax.random.key(seed)
        program = language_experiment.training_program(experiment, records, base, masks, key=key)
        answer, bleu, exact = [], [], []
        for trained in training.train(
            program,
            key=key,
            masks=masks,
            members=range(len(masks)),
            examples=rows,
            targets=rows,
            execution=training.Execution(min(len(masks), jax.local_device_count())),
            base=base.params,
            keep_params=True,
        ):
            answer.extend(trained.result.measurements['answer_loss'])
            found = completer.measure(trained)
            bleu.extend(found['bleu'])
            exact.extend(found['exact_match'])
        line = f'{epochs:<8g}'
        for values, digits in ((answer, 3), (bleu, 3), (exact, 3)):
            mean = np.mean(values, axis=0)
            unique, near = mean[~duplicated].mean(), mean[duplicated].mean()
            line += f'{unique:10.{digits}f}{near:10.{digits}f}'
            if values is bleu:
                line += f'{near / unique:8.2f}' if unique else f'{"":>8}'
        print(line, flush=True)


if __name__ == '__main__':
    language_ensemble.define_flags(
        dataclasses.replace(DEFAULTS, machine=MachineSettings(output_dir='runs/extraction_sweep'))
    )
    launch.run(main)
