"""Volumes of a run with a range of acquisitions: they are measured as the user chooses, or as the scanner did."""

import jax.numpy as jnp
import numpy as np
import pytest
from faults.kspace_files import bart
from helper import npy_bytes, write_explorable

from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.models import model
from hyperrecon_jax.physics import masks
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("small_network")

RANGE = {"acceleration": (2.0, 8.0), "sigma": (0.0, 0.1), "mask": ("poisson_disc", "random_lines")}
CHOSEN = "acceleration=4,sigma=0.05,mask=random_lines"
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_explorable(tmp_path_factory.mktemp("runs"), task=RANGE)


@pytest.fixture(scope="module")
def engine(folder):
    return Engine(folder / "run")


def add_kspace(engine, mask, sigma):
    """A volume of k-space of a disc, centred as in files; with the noise it is divided by the largest value."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = 1 / (1 + np.exp(np.hypot(x, y) - SIZE / 4))
    noise = (rng.normal(size=(SIZE, SIZE)) + 1j * rng.normal(size=(SIZE, SIZE))) / np.sqrt(2)
    kspace = np.fft.fftshift(mask * (np.fft.fft2(np.fft.ifftshift(image), norm="ortho") + sigma * noise))
    return engine.volumes.add("k.npy", npy_bytes(kspace[None].astype(np.complex64)), "kspace")


@pytest.mark.slow
def test_images_are_measured_at_the_chosen_acquisition(folder, engine):
    """As `load_run` with that acquisition, which is what `bin.evaluate` scores."""
    run = load_run(folder / "run", acquisition=Acquisition(4.0, 0.05, "random_lines"))
    x = run.dataset.test.samples.arrays.image[1]
    (y,) = scoring.observe_samples(run.problem, run.keys.test, Sample(jnp.asarray(x)[None]), jnp.array([1]))
    expected = model.reconstruct(run.model, run.variables, jnp.array([0.3]), run.problem.to_net_input(y))
    image, info = engine.reconstruct("test", 1, [0.3], acquisition=CHOSEN)
    np.testing.assert_allclose(image, expected[..., 0], atol=1e-5)
    j = run.problem.data_consistency(expected, y)
    np.testing.assert_allclose(info["metrics"]["data_consistency"], j, rtol=1e-3)
    planes, _ = engine.input_and_reference("test", 1, acquisition=CHOSEN)
    np.testing.assert_allclose(planes[0], np.abs(np.fft.ifft2(np.asarray(y)[..., 0], norm="ortho")), atol=1e-5)
    lam, value = engine.find_best("test", 1, "psnr", acquisition=CHOSEN)
    psnr = engine.reconstruct("test", 1, lam, acquisition=CHOSEN)[1]["metrics"]["psnr"]
    np.testing.assert_allclose(psnr, value, atol=0.02)
    lams, _ = engine.select_diverse("test", 1, 2, np.array([[0.0], [1.0]]), acquisition=CHOSEN)
    assert lams


def test_another_acquisition_compiles_nothing(engine):
    engine.reconstruct("test", 0, [0.5])
    opened, _ = engine.volumes.measure("test", 0)
    program = engine._programs(opened.problem).reconstruct
    compiled = program._cache_size()
    misses = engine._programs.cache_info().misses
    images = [
        engine.reconstruct("test", 0, [0.5], acquisition=f"acceleration={a},sigma={sigma},mask={mask}")[0]
        for a, sigma, mask in ((2, 0.01, "poisson_disc"), (8, 0.1, "random_lines"), (4, 0, "poisson_disc"))
    ]
    assert program._cache_size() == compiled
    assert engine._programs.cache_info().misses == misses
    assert np.abs(images[0] - images[1]).max() > 1e-4


def test_the_page_gets_the_range_and_starts_in_its_middle(engine):
    acquisitions = engine.describe()["acquisitions"]
    assert acquisitions["limits"] == {"acceleration": (2, 8), "sigma": (0, 0.1), "mask": ("poisson_disc", "random_lines")}
    assert acquisitions["start"] == {"acceleration": 4.0, "sigma": 0.025, "mask": "poisson_disc"}
    start = ",".join(f"{name}={value}" for name, value in acquisitions["start"].items())
    np.testing.assert_allclose(
        engine.reconstruct("test", 0, [0.5])[0], engine.reconstruct("test", 0, [0.5], acquisition=start)[0], atol=1e-6
    )
    assert engine.describe()["task"] == "2 to 8-fold under-sampled MRI, noise 0 to 0.1"
    assert engine.volumes.describe("test")["choices"] == ["acceleration", "sigma", "mask"]


def test_the_acquisition_of_measured_kspace_is_read_off_the_data(engine):
    mask = masks.make("random_lines", (SIZE, SIZE), acceleration=4.0, seed=3)
    volume = add_kspace(engine, mask, 0.03)
    described = engine.volumes.describe(volume)
    assert described["choices"] == []
    assert described["acquisition"].startswith("4.0-fold, noise 0.0")
    assert described["acquisition"].endswith(" random lines: read off the data.")
    acquisition = engine.volumes.find_acquisition(volume, CHOSEN)
    np.testing.assert_allclose((acquisition.acceleration, acquisition.mask == "random_lines"), (4, True))
    np.testing.assert_allclose(acquisition.sigma, 0.03 / engine.volumes.get(volume).file.scale[1], rtol=0.15)
    plain = engine.reconstruct(volume, 0, [0.5])[0]
    np.testing.assert_array_equal(engine.reconstruct(volume, 0, [0.5], acquisition=CHOSEN)[0], plain)


def test_kspace_outside_of_the_range_is_told(engine):
    mask = masks.make("equispaced_lines", (SIZE, SIZE), acceleration=10.0)
    text = engine.volumes.describe(add_kspace(engine, mask, 0.3))["acquisition"]
    for part in ("acceleration from 2 to 8, this is 1", "noise from 0 to 0.1, this is 0", "this is equispaced lines."):
        assert part in text
    assert engine.reconstruct(add_kspace(engine, mask, 0.3), 0, [0.5])[0].shape == (SIZE, SIZE)


def test_full_kspace_is_under_sampled_as_chosen_and_keeps_its_noise(engine):
    volume = add_kspace(engine, np.ones((SIZE, SIZE)), 0.05)
    described = engine.volumes.describe(volume)
    assert described["choices"] == ["acceleration", "mask"]
    assert described["acquisition"].startswith("Noise 0.0")
    _, measured = engine.volumes.measure(volume, 0, CHOSEN)
    sampled = (np.asarray(measured.y.kspace) != 0).any(0)
    np.testing.assert_allclose(sampled.mean(), 0.25)
    assert (sampled.all(0) == sampled.any(0)).all()
    np.testing.assert_allclose(engine.volumes.find_acquisition(volume, CHOSEN).sigma, 0.05, rtol=0.2)


@pytest.mark.parametrize("text", ["mask=equispaced_lines", "speed=3", "acceleration=2:4"])
def test_impossible_acquisitions_are_told(engine, text):
    with pytest.raises(InputError, match="acquisition"):
        engine.reconstruct("test", 0, [0.5], acquisition=text)


def test_the_halves_of_a_bart_file_belong_together(engine):
    """Both at once are one file, of k-space or images, also beside others; one alone gets a sentence."""
    store = engine.volumes
    image = np.random.default_rng(0).random((16, 16)) * np.hanning(16)
    numbers, head = bart(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))[:, :, None, None])
    halves = [("scan/k.hdr", head), ("scan/k.cfl", numbers)]
    (kspace,) = store.add_series(halves, kind="kspace")
    assert store.get(kspace).kspace is not None
    (dropped_as_image,) = store.add_series(halves)
    assert store.describe(dropped_as_image)["name"] == "scan/k.cfl"
    with pytest.raises(InputError, match="Measured k-space must come in one file, got 2 files; open them one by one"):
        store.add_series([*halves, ("other.npy", npy_bytes(image))], kind="kspace")
    picture, _ = store.add_series([*halves, ("image.npy", npy_bytes(np.tile(image, (2, 1, 1))))])
    assert store.describe(picture)["slices"] == 2
    for name, content in halves:
        with pytest.raises(InputError, match=f"{name} must come with its other half: NAME.cfl and"):
            store.add(name, content)
        with pytest.raises(InputError, match="must come with its other half|must hold images, but none does"):
            store.add_series([(name, content), ("other.txt", b"text")])
