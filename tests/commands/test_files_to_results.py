"""From files on disk to results: every source trains, by settings alone, wherever its samples lie."""

import json
import signal

import h5py
import jax
import numpy as np
import pytest
from helper import npy_bytes

from hyperrecon_jax.commands import train
from hyperrecon_jax.commands.evaluate import evaluate
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.runs import checkpoint, run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("small_network")
SMALL = {
    "model": {"width": 2, "hyper_width": 3},
    "train": {"steps": 6, "batch": 4, "log_every": 2, "save_every": 3},
    "task": {"sigma": 0.05},
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "cache"  # one for all: data that are prepared once stay
    monkeypatch.setenv("HYPERRECON_JAX_CACHE", str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four subjects of four slices."""
    root = tmp_path_factory.mktemp("folder")
    for name in "abcd":
        np.save(root / f"{name}.npy", RNG.random((4, 16, 16), np.float32))
    return root


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    """Three patients whose two coils have maps in the file."""
    root = tmp_path_factory.mktemp("knees")
    axes = (-2, -1)
    for patient in range(3):
        images = RNG.random((4, 16, 16))
        maps = np.broadcast_to(np.array([0.8, 0.6j])[:, None, None], (4, 2, 16, 16))
        seen = np.fft.ifftshift(maps * images[:, None], axes=axes)
        with h5py.File(root / f"file{patient}.h5", "w") as file:
            file["kspace"] = np.fft.fftshift(np.fft.fft2(seen, norm="ortho"), axes=axes).astype(np.complex64)
            file["sensitivity_maps"] = maps.astype(np.complex64)
            file["ismrmrd_header"] = b"<ismrmrdHeader/>"
            file.attrs.update({"acquisition": "CORPD_FBK", "patient_id": f"p{patient}", "max": 1.0, "norm": 1.0})
    return root


def settings(root, source="folder", **data):
    data = {"source": source, "root": str(root), "size": 16, "subjects": (2, 1, 1), "slices": 4} | data
    return complete(SMALL | {"data": data})


def final_state(config, workdir):
    with checkpoint.manager(workdir, keep=2) as checkpoints:
        return jax.device_get(checkpoint.restore(checkpoints, build(config).state))


@pytest.mark.slow
def test_from_disk_interrupted_equals_from_the_device_in_one_go(folder, tmp_path, monkeypatch):
    """Bit for bit: the order is a function of the step, so the step in the checkpoint is the feed's whole state."""
    assert train.train(settings(folder, placement="device"), tmp_path / "uninterrupted", say=lambda _: None)
    disk = settings(folder, placement="disk")
    assert build(disk).dataset.train.samples.arrays is None
    original, lines = train.fit, []

    def fit_with_signal(*args, on_log, **options):
        def log(step, means, used):
            on_log(step, means, used)
            if step == 4:
                signal.raise_signal(signal.SIGTERM)

        return original(*args, on_log=log, **options)

    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", fit_with_signal)
        assert not train.train(disk, tmp_path / "run", say=lines.append)
    assert train.train(disk, tmp_path / "run", say=lines.append)
    assert "Resuming from step 4." in lines
    assert any("streamed from disk" in line for line in lines)
    jax.tree.map(np.testing.assert_array_equal, *(final_state(disk, tmp_path / name) for name in ("run", "uninterrupted")))
    a, b = (json.loads((tmp_path / name / run_folder.SUMMARY).read_text())["test"] for name in ("run", "uninterrupted"))
    assert a == b


@pytest.mark.slow
def test_measured_kspace_of_coils_trains_and_is_evaluated(knees, tmp_path):
    """Amortized: J in the k-space of every coil, no truth. The truth fits the k-space of these coils exactly."""
    config = settings(knees, "fastmri", coils=2, subjects=(1, 1, 1))
    config.loss.update(terms=("data_consistency", "total_variation"), scales=(1.0, 0.01), ground_truth=False)
    config.task.update(sigma=0.0, acceleration=2.0)
    config.train.learning_rate = 0.01
    assert train.train(config, tmp_path / "run", say=lambda _: None)
    run = load_run(tmp_path / "run")
    samples, problem = run.dataset.test.samples, run.problem
    assert samples.example.coils.kspace.shape == (2, 16, 16)
    sample = jax.tree.map(lambda leaf: leaf[0], samples.arrays)
    y = problem.observe(jax.random.key(0), sample)
    energy = problem.data_consistency(np.zeros_like(sample.image), y)
    assert problem.data_consistency(sample.image, y) < 1e-6 * energy
    ds = evaluate(tmp_path / "run", tmp_path / "run" / "evaluation", points=3, say=lambda _: None)
    assert np.isfinite(ds["psnr"]).all()
    assert run.steps == 6
    # the explorer asks the same of it; a file of images is measured as if by one coil
    engine = Engine(tmp_path / "run")
    _, result = engine.reconstruct("test", 0, [0.5])
    np.testing.assert_allclose(result["metrics"]["psnr"], ds["psnr"].sel(lam_1=0.5)[0], rtol=1e-4)
    np.testing.assert_allclose(result["metrics"]["data_consistency"], ds["data_consistency"].sel(lam_1=0.5)[0], rtol=1e-4)
    assert engine.input_and_reference(engine.volumes.add("x.npy", npy_bytes(RNG.random((16, 16)))), 0)[0].shape == (
        2,
        16,
        16,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "abide", "coils": 2}, '"fastmri" or "folder" where config.data.coils is above 0'),
        ({"source": "arrays", "train": "a", "val": "b", "test": "c", "placement": "disk"}, "config.data.placement must be"),
        ({"workers": -1}, "config.data.workers must be at least 0"),
    ],
)
def test_settings_that_no_data_can_have(folder, change, message):
    with pytest.raises(InputError, match=message):
        settings(folder, **change)


def test_files_need_a_root():
    with pytest.raises(InputError, match='config.data.root must be a folder where config.data.source is "abide"'):
        settings("", "abide")
