"""A run from settings to results: what is interrupted and resumed equals what is not, bit for bit."""

import functools
import itertools
import json
import shutil
import signal
import types

import jax
import numpy as np
import pytest
from helper import Net, write_splits

from hyperrecon_jax import data
from hyperrecon_jax.commands import loss_scales, train
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.metric_table import DICE
from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.model import init
from hyperrecon_jax.physics.operators import denoising
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs import checkpoint, datasets, experiment, logs, run_folder
from hyperrecon_jax.runs.config import default_config
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.load import load, load_run, load_segmenter, load_state, load_task
from hyperrecon_jax.runtime.errors import Diverged, InputError

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    config = default_config()
    config.data.update(write_splits(tmp_path_factory.mktemp("data"), train=10, val=3, test=4))
    config.task.sigma = 0.05
    config.model.width = 2
    config.model.hyper_width = 3
    config.model.norm = "batch"  # has running statistics to save, too
    config.train.steps = 6
    config.train.batch = 4
    config.train.log_every = 5
    config.train.save_every = 3
    return config


def final_state(workdir, initial_state):
    with checkpoint.manager(workdir, keep=2) as checkpoints:
        return jax.device_get(checkpoint.restore(checkpoints, initial_state))


def changed(config, **values):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        for key, value in values.items():
            group, name = key.split("__")
            other[group][name] = value
    return other


@pytest.fixture(scope="module")
def initial_state(settings):
    return build(settings).state


@pytest.fixture(scope="module")
def uninterrupted(settings, initial_state, tmp_path_factory):
    """The folder of a run and its final state."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train.train(settings, workdir, say=lambda line: None)
    return workdir, final_state(workdir, initial_state)


def test_logs_outlive_a_kill_after_the_line_that_they_are_part_of(settings, tmp_path, monkeypatch):
    """Stopped at step 4, resumed, and killed after the line of step 5, before a checkpoint: it starts from step 4 again."""
    monkeypatch.setattr(train, "uses_dhs", lambda setup: False)
    lines = []

    def write(*line, is_stored):
        lines.append((*line, is_stored))

    def resume(first):
        unlogged = train._read_unlogged(settings, tmp_path, first)
        experiment = types.SimpleNamespace(config=settings, setup=None)
        return train.Session(experiment, None, train.WorkFolder(tmp_path, {}, 0, True), None, write, {}, unlogged, None)

    session = resume(0)
    train._log(session, 3, [{"loss": 3.0}], None)
    train._log(session, 4, [{"loss": 4.0}], None)
    for _ in range(2):
        session = resume(4)
        assert session.unlogged == [{"loss": 4.0}]
        train._log(session, 5, [{"loss": 5.0}], None)
        assert lines[-1] == (5, "train", {"loss": 4.5}, True)


def test_interrupted_and_resumed_equals_uninterrupted(settings, uninterrupted, initial_state, tmp_path, monkeypatch):
    """Stopped at step 4, between two checkpoints and two lines of the log, and by another placement when it goes on."""
    original = train.fit

    def fit_with_signal(step, *args, **options):
        def step_with_signal(state, batch):
            if int(state.step) == 3:
                signal.raise_signal(signal.SIGINT)
            return step(state, batch)

        return original(step_with_signal, *args, **options)

    lines = []
    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", fit_with_signal)
        assert not train.train(settings, tmp_path / "run", say=lines.append)
    assert "Interrupted at step 4" in lines[-1]
    assert not (tmp_path / "run" / run_folder.SUMMARY).exists()
    assert signal.getsignal(signal.SIGINT) is not None

    assert train.train(changed(settings, data__placement="host"), tmp_path / "run", say=lines.append)
    assert "Resuming from step 4." in lines
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "run", initial_state), uninterrupted[1])
    a, b = (json.loads((f / run_folder.SUMMARY).read_text()) for f in (tmp_path / "run", uninterrupted[0]))
    assert a["test"] == b["test"]
    rows, expected = (
        [{**row, "seconds": 0} for row in logs.read_rows(workdir / run_folder.METRICS)]
        for workdir in (tmp_path / "run", uninterrupted[0])
    )
    assert rows == expected
    assert not (tmp_path / "run" / run_folder.UNLOGGED).exists()


@pytest.mark.slow
def test_a_signal_breaks_a_validation_off_and_the_next_start_makes_up_for_it(
    settings, uninterrupted, initial_state, tmp_path, monkeypatch
):
    """The state is saved before; the last step is no exception."""
    original, lines = train.validate, []
    for step in (3, 6):

        def validate(experiment, scorer, state, step=step):
            if int(state.step) == step:
                signal.raise_signal(signal.SIGTERM)
            return original(experiment, scorer, state)

        with monkeypatch.context() as patched:
            patched.setattr(train, "validate", validate)
            assert not train.train(settings, tmp_path / "run", say=lines.append)
        assert lines[-1].startswith(f"Interrupted at step {step}; it is saved")
        rows = logs.read_rows(tmp_path / "run" / run_folder.METRICS)
        assert [row["step"] for row in rows if "val/loss" in row] == [3][: step // 6]
    assert train.train(settings, tmp_path / "run", say=lines.append)
    validations, expected = (
        [{**row, "seconds": 0} for row in logs.read_rows(folder / run_folder.METRICS) if "val/loss" in row]
        for folder in (tmp_path / "run", uninterrupted[0])
    )
    assert [row["step"] for row in validations] == [3, 6]
    assert validations == expected
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "run", initial_state), uninterrupted[1])


@pytest.mark.slow
def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends_at_once(settings, tmp_path, monkeypatch, request):
    original = train.fit
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def fit(*args, on_log, second, **options):
        def log(step, means, selected_lams):
            on_log(step, means, selected_lams)
            if step == 1:
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(second)

        return original(*args, on_log=log, **options)

    monkeypatch.setattr(train, "fit", functools.partial(fit, second=signal.SIGTERM))
    assert not train.train(settings, tmp_path / "run", say=lambda line: None)
    assert (tmp_path / "run" / run_folder.CHECKPOINTS / "1").is_dir()
    monkeypatch.setattr(train, "fit", functools.partial(fit, second=signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train.train(settings, tmp_path / "other", say=lambda line: None)
    assert list((tmp_path / "other" / run_folder.CHECKPOINTS).iterdir()) == []


@pytest.mark.slow
def test_scales_of_supervised_losses_come_from_networks_of_single_losses(settings, tmp_path, monkeypatch):
    """1/s_k, s_k the validation loss of a U-Net that is trained with loss k alone, by a run of its own (Sec. IV-D)."""
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(tmp_path / "cache"))
    settings = changed(settings, model__norm="none")  # before a norm Adam makes full steps of a bias's round-off
    automatic, lines = changed(settings, loss__scales=("auto",)), []
    assert train.train(automatic, tmp_path / "run", say=lines.append)
    magnitudes = json.loads((tmp_path / "run" / run_folder.SCALES).read_text())["magnitudes"]
    for lam, name in enumerate(settings.loss.terms):
        alone = changed(settings, model__hyper_width=0, lam__sampling="constant", lam__value=(float(lam),))
        assert train.train(alone, tmp_path / name, say=lambda _: None)
        rows = logs.read_rows(tmp_path / name / run_folder.METRICS, required=("step",))
        np.testing.assert_allclose(magnitudes[name], [row["val/loss"] for row in rows if "val/loss" in row][-1], rtol=1e-3)
    _, objective = load_task(tmp_path / "run")
    np.testing.assert_allclose(objective.scales, [1 / magnitudes[name] for name in settings.loss.terms])

    second_lines = []
    assert train.train(changed(automatic, model__hyper_width=2), tmp_path / "again", say=second_lines.append)
    assert any("determined before, with the same settings" in line for line in second_lines)
    assert not (tmp_path / "again" / run_folder.CALIBRATION).exists()
    assert json.loads((tmp_path / "again" / run_folder.SCALES).read_text())["magnitudes"] == magnitudes


@pytest.fixture(scope="module")
def amortized(settings):
    """Amortized optimization with DHS, scales from a pilot."""
    return changed(
        settings,
        loss__terms=("data_consistency", "weight_l1", "total_variation"),
        loss__scales=("auto",),
        loss__ground_truth=False,
        loss__pilot_steps=3,
        dhs__keep=2,
        model__norm="instance",
    )


@pytest.mark.slow
def test_amortized_run_goes_on_with_the_scales_and_the_lambdas_that_it_has(amortized, tmp_path, monkeypatch):
    """Stopped at step 5, after its last checkpoint but one: everything it leaves equals an uninterrupted run's."""
    original, asked = train.fit, itertools.count()
    lines = []
    assert train.train(amortized, tmp_path / "uninterrupted", say=lines.append)
    assert any("they alone are pulled back" in line for line in lines)
    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", lambda *a, **options: original(*a, **{**options, "stop": lambda: next(asked) >= 5}))
        assert not train.train(amortized, tmp_path / "run", say=lines.append)
        shutil.rmtree(tmp_path / "run" / run_folder.CHECKPOINTS / "5")  # as if killed just before it was written
        patched.setattr(loss_scales, "pilot", None)
        patched.setattr(train, "fit", original)
        assert train.train(amortized, tmp_path / "run", say=lines.append)
    assert "Resuming from step 3." in lines
    initial_state = build(amortized).state
    a, b = (final_state(tmp_path / name, initial_state) for name in ("run", "uninterrupted"))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    for name in (run_folder.SCALES, run_folder.LAMBDAS):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "uninterrupted" / name).read_text()

    scales = json.loads((tmp_path / "run" / run_folder.SCALES).read_text())
    for name, magnitude in scales["magnitudes"].items():
        np.testing.assert_allclose(scales["scales"][name] * magnitude, 1)
    _, objective = load_task(tmp_path / "run")
    assert objective.scales == tuple(scales["scales"][name] for name in amortized.loss.terms)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(load_state(tmp_path / "run")[1]), a)

    rows = [json.loads(line) for line in (tmp_path / "run" / run_folder.LAMBDAS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    with np.load(tmp_path / "run" / run_folder.HISTOGRAM) as saved:
        counts, edges = saved["counts"], saved["edges"]
    lams = np.array([row["lams"] for row in rows])
    for epoch, steps in enumerate([(0, 1, 2), (3, 4), (5,)]):  # of 10 images, 4 a step
        expected = np.histogram2d(*lams[list(steps)].reshape(-1, 2).T, bins=[edges, edges])[0]
        np.testing.assert_array_equal(counts[epoch], expected)
    assert (tmp_path / "run" / "dhs_histogram.png").stat().st_size > 1000


def test_uniform_sampling_keeps_no_histogram(uninterrupted):
    assert not (uninterrupted[0] / run_folder.LAMBDAS).exists()
    assert not (uninterrupted[0] / run_folder.HISTOGRAM).exists()
    assert not (uninterrupted[0] / run_folder.SCALES).exists()


def test_a_pilot_that_fails_leaves_nothing(amortized, tmp_path, monkeypatch):
    """So that the same folder can be used with other settings."""

    def pilot(*args, **options):
        raise Diverged("nan")

    monkeypatch.setattr(loss_scales, "pilot", pilot)
    with pytest.raises(Diverged):
        train.train(amortized, tmp_path / "run", say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_term_needs_no_histogram(settings, tmp_path):
    """DHS over the images alone: there is no lambda."""
    alone = changed(settings, loss__terms=("data_consistency",), loss__scales=(1.0,), dhs__keep=2, train__steps=1)
    assert train.train(alone, tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run" / run_folder.HISTOGRAM).exists()


@pytest.mark.slow
def test_segmentation_from_settings_to_its_use_on_reconstructions(tmp_path, monkeypatch):
    def load_data(config, splits=None):
        rng, size, slices = np.random.default_rng(0), config.data.size, config.data.slices
        counts = [subjects * slices for subjects in config.data.subjects]
        labels = [rng.integers(0, 3, (count, size, size)).astype(np.uint8) for count in counts]  # two are absent
        images = [x[..., None] / 4 + 0.5 * rng.random((*x.shape, 1), np.float32) for x in labels]
        samples = [data.in_memory(Sample(x, t)) for x, t in zip(images, labels, strict=True)]
        return data.Dataset(*(data.Split(s, np.arange(s.size) // slices) for s in samples))

    monkeypatch.setattr(datasets, "load_data", load_data)
    monkeypatch.setattr(experiment, "load_data", load_data)
    config = default_config()
    config.data.update(size=16, subjects=(4, 1, 2), slices=3)
    config.task.name = "segmentation"
    config.loss.update(terms=("soft_dice",), scales=(1.0,))
    config.lam.sampling = "constant"
    config.model.update(width=2, hyper_width=0, residual=False)
    config.train.update(steps=3, batch=4, learning_rate=0.01, save_every=2)
    lines, folder = [], tmp_path / "run"
    assert train.train(config, folder, say=lines.append)
    assert (folder / run_folder.PICTURE).stat().st_size > 1000
    rows = logs.read_rows(folder / run_folder.METRICS)
    assert all("val/dice" in row and "val/loss" in row for row in rows if "train/loss" not in row)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    (row,) = json.loads((folder / run_folder.SUMMARY).read_text())["test"].values()
    assert "dice_background" in lines[-3]  # the table

    segment = jax.jit(load_segmenter(folder))
    truth = load_run(folder).dataset.test.samples.arrays
    label_maps = np.stack([segment(x) for x in truth.image])
    assert label_maps.shape == (6, 16, 16)
    expected_dice = metrics.dice(label_maps, truth.label.astype(int), num_classes=5)
    for name, expected in zip(DICE[1:], expected_dice.T, strict=True):
        if np.isnan(expected).all():
            assert name not in row
        else:
            np.testing.assert_allclose(row[name], np.nanmean(expected), rtol=1e-5)

    # of what another network reconstructs
    other, variables = init(jax.random.key(0), Net("instance"), np.zeros((16, 16, 2)), num_terms=2, hyper_width=3)
    task, names = (Objective({}, ()), simulated(denoising())), ("psnr", "dice")
    scorer = Scorer(other, *task, names=names, segment=load_segmenter(folder))
    ends = np.array([[0.0], [1.0]], np.float32)
    scores, input_scores = scorer.run(variables, data.in_memory(truth), ends, jax.random.key(0))
    assert scores["dice"].shape == (2, 6)
    np.testing.assert_allclose(input_scores["dice"], np.nanmean(expected_dice, -1), rtol=1e-5)

    with pytest.raises(
        InputError, match=r"`x_hat` must have the shape \(16, 16, 1\) that .* was trained on, got \(24, 16, 1\)"
    ):
        segment(np.zeros((24, 16, 1), np.float32))
    run_folder.write_json(folder / run_folder.CONFIG, default_config().to_dict())
    with pytest.raises(InputError, match="must hold a run of config.task.name \"segmentation\", got 'csmri'"):
        load_segmenter(folder)


def test_what_is_no_run_is_not_loaded(tmp_path):
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load(tmp_path)
    (tmp_path / run_folder.CONFIG).write_text("{}")
    with pytest.raises(InputError, match="holds no run that was trained"):
        load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [run_folder.CONFIG]


def test_checkpoints_hold_everything(uninterrupted, initial_state):
    state = uninterrupted[1]
    assert int(state.step) == 6
    assert jax.tree.structure(state) == jax.tree.structure(initial_state)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(initial_state), strict=True)
    moved = [not np.array_equal(a, b) for a, b in pairs]
    assert np.mean(moved) > 0.9  # parameters, moments, counters, running statistics


def test_the_best_checkpoint_stays(initial_state, tmp_path):
    losses = {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.2}
    with checkpoint.manager(tmp_path, keep=2, losses=losses) as checkpoints:
        for step in losses:
            checkpoint.save(checkpoints, initial_state._replace(step=np.array(step, np.int32)), {})
        checkpoints.wait_until_finished()
        assert sorted(checkpoints.all_steps()) == [2, 4, 5]


@pytest.mark.slow
def test_nan_stops_with_the_step_and_the_last_good_checkpoint(settings, initial_state, tmp_path):
    hot = changed(settings, train__learning_rate=1e30, train__save_every=1, train__steps=9)
    with pytest.raises(Diverged, match=r"not finite at step \d+ .*step \d+ is the last good one.*learning_rate"):
        train.train(hot, tmp_path / "run", say=lambda line: None)
    state = final_state(tmp_path / "run", initial_state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_longer_runs_go_on(settings, uninterrupted, tmp_path):
    """More steps are no other experiment, unless the schedule depends on them."""
    from hyperrecon_jax.runs.config import differences

    longer = changed(settings, train__steps=8)
    assert differences(settings.to_dict(), longer.to_dict()) == []
    cosine = [changed(c, train__schedule="cosine").to_dict() for c in (settings, longer)]
    assert differences(*cosine) == ["train.steps (6 there, 8 here)"]


def test_dry_run_writes_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    train.dry_run(settings, say=lines.append)
    text = "\n".join(lines)
    assert list(tmp_path.iterdir()) == []
    for part in ("parameters", "10 training, 3 validation, 4 test images of 16 x 16", "s a step", "GiB"):
        assert part in text


@pytest.mark.slow
def test_black_images_neither_stop_a_run_nor_spoil_its_figures(settings, tmp_path):
    """A black image without noise is automatic exactly by a network with instance norm: its PSNR is infinite."""
    config = changed(settings, task__sigma=0.0, model__norm="instance", train__steps=2)
    with config.unlocked():
        for split in ("train", "val", "test"):
            images = np.load(config.data[split])
            images[::2] = 0
            np.save(tmp_path / f"{split}.npy", images)
            config.data[split] = str(tmp_path / f"{split}.npy")
    assert train.train(config, tmp_path / "run", say=lambda line: None)
    for row in json.loads((tmp_path / "run" / run_folder.SUMMARY).read_text())["test"].values():
        assert all(np.isfinite(value) for value in row.values())
