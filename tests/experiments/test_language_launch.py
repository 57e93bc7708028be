"""The language experiment from records to report: what it records, keeps, shares and refuses."""

import csv
import dataclasses
import html
import json
import shutil
import types

import jax
import numpy as np
import pytest

from experiments import language_data, language_ensemble
from experiments import launch as launching
from experiments.language_ensemble import LanguageExperiment
from experiments.language_model import DEFAULTS
from experiments.language_settings import (
    ExtractionSettings,
    LargeSettings,
    ModelSettings,
    TextSettings,
)
from experiments.nq_gpt_neo import PAPER
from experiments.plan import PlanSettings
from experiments.settings import AnalysisSettings, EnsembleSettings, MachineSettings
from influence_jax import data, store, train_full_data_model, training
from influence_jax.analysis.extraction import scores
from influence_jax.analysis.extraction_regime import Regime, judge
from influence_jax.data.text import encode, prompted
from influence_jax.data.text.tokenizer import from_pretrained, train_byte_bpe
from influence_jax.estimators import difference_in_means
from influence_jax.explorer import Site, open_results
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face, init
from influence_jax.report.facts import precision_of
from influence_jax.report.tokens import TokenResults
from influence_jax.tasks import pretraining
from influence_jax.tasks.causal_lm import COMPLETIONS
from influence_jax.tasks.completion import EXTRACTION
from influence_jax.training.checkpoint import Checkpointer

pytestmark = pytest.mark.slow  # whole launches

NAMES = ('left', 'right', 'upper', 'lower', 'inner', 'outer', 'first', 'last')
THINGS = ('door', 'hand', 'shelf', 'lamp', 'row', 'page')
MEMBERS, RECORDS = 24, 10 + 3 * 3


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Questions and answers of a few words."""
    path = tmp_path_factory.mktemp('texts') / 'doors.jsonl'
    records = [
        {'question': f'which {thing} is {name}', 'answer': f'the {thing} on the {name} side'}
        for name in NAMES
        for thing in THINGS
    ]
    path.write_text('\n'.join(map(json.dumps, records)))
    return path


@pytest.fixture
def run(source):
    """Runs a small experiment in this process; the arguments replace its settings."""

    def run(directory, **changes):
        concerns = {
            'text': TextSettings(
                dataset=str(source), unique=10, duplicated=3, copies=3, max_length=40
            ),
            'ensemble': EnsembleSettings(members=MEMBERS),
            'model': ModelSettings(width=16, heads=2, vocabulary=300),
            'recipe': training.Recipe(epochs=4, batch_size=4, learning_rate=1e-2),
            'machine': MachineSettings(streams=1, vmap=8, output_dir=str(directory)),
        }
        for name, fields in changes.items():
            if isinstance(fields, dict):
                fields = dataclasses.replace(concerns[name], **fields)
            concerns[name] = fields
        return language_ensemble.run(LanguageExperiment(**concerns))

    return run


@pytest.fixture
def unreported(monkeypatch):
    """In place of reports: how precise each run says it is."""
    seen = []
    monkeypatch.setattr(launching.report, 'gather', lambda run, **_: seen.append(precision_of(run)))
    monkeypatch.setattr(launching.terminal, 'save_and_show', lambda *_, **__: None)
    return seen


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A directory for one whole run, made by the first test that needs it."""
    return tmp_path_factory.mktemp('language') / 'run'


@pytest.fixture
def whole(run, finished):
    if not finished.exists():
        run(finished)
    return store.open_run(finished)


def test_a_whole_run(whole, finished):
    assert len(whole.complete) == MEMBERS
    assert whole.example_ids == whole.target_ids
    assert [identity.count('~') for identity in whole.example_ids].count(1) == 3 * 2
    assert whole.manifest.measurements == (
        'loss',
        'answer_loss',
        'token_accuracy',
        *EXTRACTION,
    )
    loss = whole.measurement('loss')
    assert loss.shape == (MEMBERS, RECORDS)
    assert loss[whole.masks].mean() < loss[~whole.masks].mean()
    for name in EXTRACTION:
        values = whole.measurement(name)
        assert ((values >= 0) & (values <= 1)).all()
    assert whole.measurement('longest_common_share').std() > 0
    full_data = store.open_run(finished / 'everything')
    assert full_data.masks.all() and len(full_data.complete) == 1
    assert full_data.measurement('loss').mean() < loss[~whole.masks].mean()
    page = (finished / 'report' / 'index.html').read_text()
    for title in ('Unique and near-duplicated records', 'Clusters in the influence matrix', 'BLEU'):
        assert title in page
    assert 'which ' in page


def test_what_was_planted_and_given_back_is_kept(whole, finished):
    with (finished / 'report' / 'records.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert tuple(row['id'] for row in rows) == whole.target_ids
    assert sum(bool(row['change']) for row in rows) == 3 * 2
    variants = [row for row in rows if '~' in row['id']]
    assert all(row['change'] for row in variants)
    originals = {row['id']: row['group'] for row in rows}
    assert all(row['group'] == originals[row['id'].split('~')[0]] for row in variants)
    decoded = store.open_run(finished / 'everything').texts('completions')
    assert len(decoded) == RECORDS and any(decoded)
    bleu, exact = whole.measurement('bleu'), whole.measurement('exact_match')
    held = whole.masks[:, 0]
    assert float(rows[0]['bleu_held']) == pytest.approx(bleu[held, 0].mean(), abs=1e-5)
    assert float(rows[0]['exact_match_left_out']) == pytest.approx(exact[~held, 0].mean(), abs=1e-5)


def test_page_and_terminal_say_which_regime_of_extraction_the_run_is_in(
    run, whole, finished, capsys
):
    """Four epochs of so few records give back nothing."""
    run(finished)
    said = ' '.join(capsys.readouterr().out.split())
    page = html.unescape((finished / 'report' / 'index.html').read_text())
    regime = Regime.BEFORE.value
    for shown in (said, ' '.join(page.split())):
        assert regime in shown
        assert '--epochs=8 instead of 4' in shown


def test_losses_and_scores_of_tokens_are_kept_with_parameters(run, tmp_path, capsys):
    directory = tmp_path / 'run'
    settings = {
        'ensemble': {'members': 12},
        'machine': {'keep_params': True, 'output_dir': str(directory)},
        'extraction': ExtractionSettings(extract=False, token_members=8),
        'analysis': AnalysisSettings(estimator=difference_in_means, attribution='cosine,dot'),
    }
    run(directory, **settings)
    stored = store.open_run(directory)
    kept = TokenResults.load(directory, run=stored.manifest.identity)
    assert (
        len(kept.losses.members) == 8 and kept.scores.method.name == 'dot'
    )  # cosine is not linear
    assert np.isfinite(kept.losses.of_target(0).loss_out[1:]).all()
    said = capsys.readouterr().err
    assert 'by 8 members' in said and 'gradient product' in said and 'experiments.explore' in said
    site = Site([open_results(directory)])
    (target,) = np.unique(kept.scores.targets)[:1]
    (page,) = json.loads(site.get(f'0/targets/{target}.json'))
    assert page['tokens']['scores'] and len(page['tokens']['texts']) == len(page['tokens']['out'])


def test_without_parameters_no_tokens_are_kept(whole, finished):
    assert not (finished / 'tokens.zarr').exists()


def test_tokens_can_be_left_out(run, tmp_path):
    run(
        tmp_path,
        ensemble={'members': 12},
        machine={'keep_params': True, 'output_dir': str(tmp_path)},
        extraction=ExtractionSettings(extract=False, token_members=0),
        analysis=AnalysisSettings(estimator=difference_in_means),
    )
    assert not (tmp_path / 'tokens.zarr').exists()
    with pytest.raises(ValueError, match='token_members'):
        ExtractionSettings(token_members=-1)


def test_a_tokenizer_of_its_own_and_records_that_are_cut(run, source, tmp_path, unreported, capsys):
    tokenizer = train_byte_bpe(data.load(str(source)).texts, 290)
    tokenizer.save(tmp_path / 'tokenizer')
    run(
        tmp_path / 'run',
        model={'tokenizer': str(tmp_path / 'tokenizer')},
        text={'max_length': 16, 'duplicated': 0, 'unique': 20},
        extraction=ExtractionSettings(extract=False),
    )
    configuration = store.open_run(tmp_path / 'run').manifest.configuration
    assert configuration['tokenizer'] == tokenizer.fingerprint
    assert configuration['network']['vocab_size'] == tokenizer.vocab_size
    assert '20 of 20 records are cut to 16 tokens' in capsys.readouterr().err


def test_the_same_command_again_trains_nothing(whole, run, source, finished, tmp_path, monkeypatch):
    """Also when the same records have moved."""
    monkeypatch.setattr(training, 'train', None)
    moved = shutil.copy(source, tmp_path / source.name)
    page = run(finished, text={'dataset': str(moved)})
    assert page == finished / 'report' / 'index.html'


def test_members_that_are_missing_are_trained_alone(whole, run, finished, tmp_path, monkeypatch):
    directory = tmp_path / 'half'
    shutil.copytree(finished, directory)
    for member in (3, 17):
        (directory / 'status.zarr' / f'c.{member}').unlink()
    train, trained = training.train, []

    def counted(*args, members, **rest):
        trained.extend(members)
        return train(*args, members=members, **rest)

    monkeypatch.setattr(training, 'train', counted)
    run(directory)
    assert trained == [3, 17]
    for name in whole.manifest.measurements:
        np.testing.assert_allclose(
            store.open_run(directory).measurement(name), whole.measurement(name), atol=1e-3
        )


def test_another_duplication_in_the_same_directory(whole, run, finished):
    with pytest.raises(store.RunError, match='another configuration'):
        run(finished, text={'unique': 11})


@pytest.mark.usefixtures('unreported')
def test_a_base_is_pretrained_once_and_shared(run, tmp_path, monkeypatch):
    pretrain, calls = pretraining._pretrain, []

    def counted(*args, **rest):
        calls.append(args)
        return pretrain(*args, **rest)

    monkeypatch.setattr(pretraining, '_pretrain', counted)
    model = {'pretrain_epochs': 20}
    without = {'extraction': ExtractionSettings(extract=False)}
    run(tmp_path / 'full', model=model, **without)
    run(tmp_path / 'adapters', model=model | {'lora_rank': 2}, **without)
    assert len(calls) == 1
    (base,) = (tmp_path / 'bases').iterdir()
    hugging_face.load(base)
    from_pretrained(str(base))  # so that it can be given as --model
    full, adapters = (store.open_run(tmp_path / name) for name in ('full', 'adapters'))
    assert full.manifest.configuration['base'] == base.name
    assert full.manifest.measurements == ('loss', 'answer_loss', 'token_accuracy')
    fresh = np.log(300)  # a model that knows nothing
    for started in (full, adapters):
        assert started.measurement('loss').mean() < 0.7 * fresh
    # Adapters of rank 2 change the model less than training all of it does.
    gains = [
        (s.measurement('loss')[~s.masks].mean() - s.measurement('loss')[s.masks].mean())
        for s in (full, adapters)
    ]
    assert gains[0] > gains[1] > 0


@pytest.mark.usefixtures('unreported')
def test_members_start_from_a_checkpoint(run, source, tmp_path):
    folder = tmp_path / 'checkpoint'
    tokenizer = train_byte_bpe(data.load(str(source)).texts, 280)
    config = GPTNeoConfig(280, hidden=8, layers=2, heads=2, max_positions=64)
    hugging_face.save(folder, config, init(config, key=jax.random.key(0)))
    tokenizer.save(folder)
    run(tmp_path / 'run', model=ModelSettings(str(folder)))
    configuration = store.open_run(tmp_path / 'run').manifest.configuration
    assert configuration['network']['vocab_size'] == 280
    assert configuration['tokenizer'] == tokenizer.fingerprint
    with pytest.raises(ValueError, match=r'12 positions; lower max_length'):
        small = dataclasses.replace(config, max_positions=12)
        hugging_face.save(folder, small, init(small, key=jax.random.key(0)))
        run(tmp_path / 'other', model=ModelSettings(str(folder)))


def test_a_base_in_another_precision_is_another_base(run, tmp_path, monkeypatch):
    monkeypatch.setattr(language_ensemble, 'train_ensemble', lambda *_, **__: None)
    monkeypatch.setattr(launching, 'report_of', lambda *_, **__: None)
    full_data = types.SimpleNamespace(texts=lambda name: ())
    monkeypatch.setattr(language_ensemble, 'train_full_data_model', lambda *_, **__: full_data)
    for bfloat16 in (False, True):
        run(tmp_path / str(bfloat16), model={'pretrain_epochs': 0.5, 'bfloat16': bfloat16})
    assert len(list((tmp_path / 'bases').iterdir())) == 2


def test_a_tokenizer_that_is_not_the_networks(run, source, tmp_path):
    """Its highest tokens would have no embedding: every member would train to NaN."""
    config = GPTNeoConfig(270, hidden=8, layers=1, heads=2, max_positions=64)
    hugging_face.save(tmp_path / 'checkpoint', config, init(config, key=jax.random.key(0)))
    train_byte_bpe(data.load(str(source)).texts, 280).save(tmp_path / 'checkpoint')
    with pytest.raises(ValueError, match='has 280 tokens, but the network only 270'):
        run(tmp_path / 'run', model=ModelSettings(str(tmp_path / 'checkpoint')))


def test_members_on_a_mesh_are_the_same(whole, run, tmp_path, unreported):
    directory = tmp_path / 'mesh'
    run(
        directory,
        plan=PlanSettings(mesh='2,2,1'),
        machine={'streams': 0},
        extraction=ExtractionSettings(extract=False),
    )
    spread = store.open_run(directory)
    np.testing.assert_array_equal(spread.masks, whole.masks)
    np.testing.assert_allclose(
        spread.measurement('loss')[:4], whole.measurement('loss')[:4], rtol=0.02
    )
    assert not list(directory.glob('in_training/*'))
    layout = spread.manifest.executor
    assert [layout[axis] for axis in ('member', 'data', 'model', 'vmapped')] == [2, 2, 1, 8]


@pytest.mark.parametrize('mesh', ['', '2,1,1'])
def test_an_ensemble_that_grows(run, tmp_path, monkeypatch, unreported, mesh):
    """It leaves nothing in training behind, and closes what wrote it before that is removed."""
    cleared = []
    clear = Checkpointer.clear

    def counted(self):
        cleared.append(self._manager is not None)
        clear(self)

    monkeypatch.setattr(Checkpointer, 'clear', counted)
    growing = AnalysisSettings(
        estimator=difference_in_means,
        until_standard_error=5.0,
        max_members=40,
    )
    run(
        tmp_path / 'grown',
        analysis=growing,
        extraction=ExtractionSettings(extract=False),
        plan=PlanSettings(mesh=mesh),
        machine={'streams': 0 if mesh else 1},
        large=LargeSettings(checkpoint_steps=3, checkpoint_minutes=0),
    )
    assert unreported[0].enough
    assert len(store.open_run(tmp_path / 'grown').complete) < 40
    assert not (tmp_path / 'grown' / 'in_training').exists()
    assert all(cleared) and bool(cleared) == bool(mesh)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'text': {'dataset': 'squad'}}, "unknown dataset 'squad'"),
        ({'text': {'dataset': 'absent.jsonl'}}, 'absent.jsonl'),
        ({'text': {'unique': 100}}, 'unique'),
        ({'text': {'max_length': 6}}, 'within 6 tokens: only 0 of 48 examples'),
        ({'text': {'max_length': 6, 'duplicated': 0}}, 'nothing to learn from'),
        ({'recipe': {'batch_size': 19}}, 'fewer than batch_size=19'),
        ({'model': {'vocabulary': 100}}, 'too small'),
        ({'model': {'width': 15}}, 'does not divide'),
        ({'model': ModelSettings('no/such/folder')}, 'no/such/folder'),
        ({'plan': PlanSettings(mesh='2,2,1')}, 'leave out --mesh'),
        ({'plan': PlanSettings(mesh='2,2'), 'machine': {'streams': 0}}, 'a mesh is three sizes'),
        ({'plan': PlanSettings(mesh='9,9,9'), 'machine': {'streams': 0}}, 'takes 729 devices'),
    ],
)
def test_bad_input(run, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        run(tmp_path / 'run', **changes)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run' / 'manifest.json').exists()


def test_records_left_out_are_printed(run, source, tmp_path, capsys):
    lines = source.read_text().splitlines()
    (tmp_path / 'twice.jsonl').write_text('\n'.join([*lines, *lines[:3]]))
    with pytest.raises(ValueError, match='batch_size=19'):
        run(
            tmp_path / 'run',
            text={'dataset': str(tmp_path / 'twice.jsonl')},
            recipe={'batch_size': 19},
        )
    assert f'3 of {len(lines) + 3} records repeat an earlier one' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'lora_rank': -1}, 'lora_rank must be 0'),
        ({'lora_rank': 2}, 'add --pretrain_epochs'),
        ({'model': 'EleutherAI/gpt-neo-1.3B', 'pretrain_epochs': 1}, 'pretrained already'),
    ],
)
def test_wrong_model_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelSettings(**settings)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'checkpoint_steps': -1}, r'checkpoint_steps must be 0 \(never\) or more, not -1'),
        ({'checkpoint_minutes': -1}, r'checkpoint_minutes must be 0 \(each time\) or more, not -1'),
        ({'checkpoint_minutes': np.inf}, 'or more, not inf'),
        ({'checkpoint_minutes': np.nan}, 'or more, not nan'),
    ],
)
def test_wrong_settings_of_large_members(settings, message):
    with pytest.raises(ValueError, match=message):
        LargeSettings(**settings)


def test_the_papers_experiment():
    """Section 4.2 of arXiv 2506.20481."""
    text, ensemble, model = PAPER.text, PAPER.ensemble, PAPER.model
    assert text.dataset == 'nq_open'
    assert (*text.counts(), text.copies, text.max_length) == (1000, 100, 5, 100)
    assert (ensemble.members, ensemble.keep) == (1000, 0.5)
    assert (model.model, model.bfloat16) == ('EleutherAI/gpt-neo-1.3B', True)
    assert (model.lora_rank, model.pretrain_epochs) == (0, 0)
    recipe = PAPER.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (3, 50, 2e-4)


def test_defaults_are_in_the_papers_regime_of_extraction(tmp_path):
    """As the model trained on all of the embedded records tells, which is the paper's measure."""
    text, tokens = DEFAULTS.text, DEFAULTS.text.max_length
    records = language_data.prepare(text, DEFAULTS.model, seed=0)
    dataset, tokenizer = records.dataset, records.tokenizer
    task = language_data.task_of(
        DEFAULTS.model,
        records,
        DEFAULTS.recipe,
        default_dir=tmp_path,
        max_length=tokens,
        extract=False,
        seed=0,
    )
    full_data = train_full_data_model(
        dataclasses.replace(task, keep_completions=True),
        dataset,
        output_dir=tmp_path / 'run',
        recipe=DEFAULTS.recipe,
        executor=training.sequential(1),
    )
    encoded = encode(dataset, tokenizer, max_length=tokens)
    _, wanted = prompted(dataset, encoded, tokenizer)
    found = judge(scores(full_data.texts(COMPLETIONS), wanted), dataset.has_near_duplicate)
    assert found.regime is Regime.PAPER
    assert found.by_full_data_model.unique < 0.1 < 0.3 < found.by_full_data_model.near_duplicated


def test_help_of_a_plan_lists_its_flags(launch):
    text = launch('--help', name='plan').stdout
    for flag in ('--topology: ', '--mesh: ', '--batch_size: ', '--[no]traceback: '):
        assert flag in text


@pytest.mark.parametrize('module', ['language_model', 'nq_gpt_neo'])
def test_help_lists_the_flags(launch, module):
    text = launch('--help', name=module).stdout
    for flag in ('--unique', '--duplicated', '--copies', '--duplication', '--members', 'plan:'):
        assert flag in text
