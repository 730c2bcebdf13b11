"""The engine of the explorer, against the functions that it calls and NumPy."""

import gzip
import io
import json
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from helper import npy_bytes, write_explorable

from hyperrecon_jax.commands import train
from hyperrecon_jax.commands.evaluate import evaluate
from hyperrecon_jax.evaluation import choose, scores, scoring
from hyperrecon_jax.explorer import engine as module
from hyperrecon_jax.explorer import exporting, jobs, measurement, volume_store
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.models import model
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runtime.errors import InputError
from tests.data.test_coils import IMAGE, relative, slow_phase, smooth_coils

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_explorable(tmp_path_factory.mktemp("runs"), conditioning="dense")


@pytest.fixture(scope="module")
def engine(folder):
    return Engine(folder / "run")


def test_the_search_for_the_best_lambda_is_that_of_choose_and_can_be_dropped(engine):
    _, measured = engine.volumes.measure("test", 1)
    starts = np.linspace(0, 1, 11, dtype=np.float32)[:, None]

    def value(lam):
        return -jnp.abs(model.reconstruct(engine.model, engine.variables, lam, measured.net_input) - measured.x).mean()

    lam, best = choose.best_lambda(value, starts)
    best_lam, mae = engine.find_best("test", 1, "mae")
    np.testing.assert_allclose(best_lam, lam, atol=1e-3)
    np.testing.assert_allclose(mae, -best, rtol=1e-5)
    reports = []

    class Impatient(jobs.Job):
        def report(self, words, share=None):
            reports.append((words, share))
            if len(reports) == 4:
                self.drop()
            super().report(words, share)

    with pytest.raises(jobs.Dropped):
        engine.find_best("test", 1, "mae", job=Impatient())
    assert reports == [
        ("Scores at 11 lambdas", 0.0),
        *(("Climbing to the best lambda", step / 41) for step in range(3)),
    ]
    dropped = jobs.Job()
    dropped.drop()
    with pytest.raises(jobs.Dropped):
        engine.select_diverse("test", 1, 3, job=dropped)


def test_a_score_that_is_infinite_is_shown_as_its_limit():
    """PSNR of a slice that is matched exactly; JSON has no infinity."""
    shown = module._to_json({"psnr": np.float32(np.inf), "ssim": np.float32(0.5), "hfen": np.float32(np.nan)})
    assert shown == {"psnr": 100.0, "ssim": 0.5, "hfen": None}


def test_a_reconstruction_is_that_of_the_model_and_its_scores_are_right(folder, engine):
    run = load_run(folder / "run")
    x = run.dataset.test.samples.arrays.image[1]
    (y,) = scoring.observe_samples(run.problem, run.keys.test, Sample(jnp.asarray(x)[None]), jnp.array([1]))
    expected = model.reconstruct(run.model, run.variables, jnp.array([0.3]), run.problem.to_net_input(y))
    image, info = engine.reconstruct("test", 1, [0.3])
    np.testing.assert_allclose(image, expected[..., 0], atol=1e-5)
    difference = image - x[..., 0]
    np.testing.assert_allclose(info["metrics"]["mae"], np.abs(difference).mean(), rtol=1e-4)
    np.testing.assert_allclose(info["metrics"]["psnr"], -10 * np.log10(np.square(difference).mean()), rtol=1e-4)
    residual = np.where(np.asarray(y)[..., 0] != 0, np.fft.fft2(image, norm="ortho") - np.asarray(y)[..., 0], 0)
    np.testing.assert_allclose(info["metrics"]["data_consistency"], (np.abs(residual) ** 2).sum(), rtol=1e-3)

    planes, info = engine.input_and_reference("test", 1)
    np.testing.assert_allclose(planes[1], x[..., 0])
    np.testing.assert_allclose(planes[0], np.abs(np.fft.ifft2(np.asarray(y)[..., 0], norm="ortho")), atol=1e-5)
    np.testing.assert_allclose(info["metrics"]["mae"], np.abs(planes[0] - planes[1]).mean(), rtol=1e-4)


def test_measured_k_space_gives_the_same_as_its_image(engine):
    """The run has no noise: all of k-space, centred as in files, is under-sampled as the image is."""
    image = np.random.default_rng(1).random((2, 24, 16)).astype(np.float32)
    image /= image.max()
    centred = np.fft.fft2(np.fft.ifftshift(image, axes=(1, 2)), norm="ortho")
    kspace = np.fft.fftshift(centred, axes=(1, 2)).astype(np.complex64)
    image_volume, kspace_volume = (
        engine.volumes.add("image.npy", npy_bytes(image)),
        engine.volumes.add("k.npy", npy_bytes(kspace), "kspace"),
    )
    assert engine.volumes.describe(kspace_volume)["truth"]
    for index in (0, 1):
        a, b = (engine.reconstruct(volume, index, [0.6]) for volume in (image_volume, kspace_volume))
        np.testing.assert_allclose(a[0], b[0], atol=2e-4)
        np.testing.assert_allclose(a[1]["metrics"]["data_consistency"], b[1]["metrics"]["data_consistency"], rtol=1e-2)
    np.testing.assert_allclose(engine.input_and_reference(kspace_volume, 1)[0][1], image[1], atol=1e-5)
    assert "24 x 16" in engine.volumes.describe(image_volume)["note"]

    kspace[:, :, ::3] = 0  # now only a part was measured
    partial = engine.volumes.add("k.npy", npy_bytes(kspace), "kspace")
    planes, info = engine.input_and_reference(partial, 0)
    assert (len(planes), info["truth"], info["metrics"]) == (1, False, {})
    zero_filled = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace[0]), norm="ortho")))
    np.testing.assert_allclose(planes[0] / planes[0].max(), zero_filled / zero_filled.max(), atol=1e-5)
    assert set(engine.reconstruct(partial, 0, [0.2])[1]["metrics"]) == {"data_consistency"}
    lams, criterion = engine.select_diverse(partial, 0, 3)
    assert len(lams) == 3
    assert "nearest the measurement" in criterion
    with pytest.raises(InputError, match="needs the truth"):
        engine.find_best(partial, 0, "psnr")


def centred(images):
    """Centred k-space, as in files."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes).astype(np.complex64)


def residual(x, y):
    """J in NumPy, coil by coil, where something was measured."""
    measured = np.asarray(y.kspace).any(0)
    differences = [np.fft.fft2(x * maps, norm="ortho") - kspace for kspace, maps in zip(*map(np.asarray, y), strict=True)]
    return sum((np.abs(difference[measured]) ** 2).sum() for difference in differences)


@pytest.mark.slow
def test_k_space_of_coils(engine):
    """Ten coils with info sensitivities, and the slow phase of an image, are explained by the image."""
    maps, phase = smooth_coils(10, 64, 64), slow_phase(64, 64)
    kspace = centred(np.stack([maps * phase * image for image in (IMAGE, IMAGE.T)]))
    volume = engine.volumes.add("coils.npy", npy_bytes(kspace), "kspace")
    description = engine.volumes.describe(volume)
    assert [description[key] for key in ("slices", "height", "width", "truth")] == [2, 64, 64, True]
    for words in ("10 coils were compressed to 8", "from the central 24 x 24 frequencies", "its own image is the truth"):
        assert words in description["note"]
    programs = engine._programs.cache_info().misses
    for index, image in enumerate((IMAGE, IMAGE.T)):
        opened, measured = engine.volumes.measure(volume, index)
        assert measured.y.kspace.shape == measured.y.maps.shape == (8, 64, 64)
        np.testing.assert_allclose((np.asarray(measured.y.kspace) != 0).any(0).mean(), 0.5, atol=0.01)  # the run's mask
        inside = (image > 0.1) & (np.asarray(measured.x)[..., 0] > 0)
        assert inside.sum() > 0.98 * (image > 0.1).sum()
        np.testing.assert_allclose(np.asarray(measured.x)[inside, 0], image[inside] / image.max(), atol=0.02)
        assert residual(np.asarray(measured.x)[..., 0], measured.y) < 2e-3 * np.square(np.abs(measured.y.kspace)).sum()
        x_hat, info = engine.reconstruct(volume, index, [0.4])
        np.testing.assert_allclose(info["metrics"]["data_consistency"], residual(x_hat, measured.y), rtol=1e-3)
    assert engine._programs.cache_info().misses == programs + 1
    second = engine.volumes.add("second.npy", npy_bytes(kspace[:1]), "kspace")
    assert engine.volumes.get(second).problem is opened.problem
    for format in exporting.FORMATS:
        assert exporting.export_slices(engine, volume, 1, [[0.4]], format)[1]


@pytest.mark.slow
def test_some_columns_of_coils(engine):
    """Every third, and 14 in the middle. No truth is info, and J does not look elsewhere."""
    columns = np.arange(64) % 3 == 1
    columns[25:39] = True
    kspace = centred(smooth_coils(3, 64, 64) * slow_phase(64, 64) * IMAGE)[None] * columns
    volume = engine.volumes.add("part.npy", npy_bytes(kspace), "kspace")
    assert "the central 14 x 14 frequencies. 47% of k-space was measured" in engine.volumes.describe(volume)["note"]
    planes, info = engine.input_and_reference(volume, 0)
    assert (planes.shape, info["truth"], info["metrics"]) == ((1, 64, 64), False, {})
    opened, measured = engine.volumes.measure(volume, 0)
    np.testing.assert_array_equal(np.asarray(measured.y.kspace).any((0, 1)), np.fft.ifftshift(columns))
    x_hat, info = engine.reconstruct(volume, 0, [0.4])
    assert set(info["metrics"]) == {"data_consistency"}
    np.testing.assert_allclose(info["metrics"]["data_consistency"], residual(x_hat, measured.y), rtol=1e-3)
    image = IMAGE / opened.file.scale[1]
    assert residual(image, measured.y) < 5e-3 * np.square(np.abs(measured.y.kspace)).sum()


def test_the_phase_of_one_coil_is_taken_out(engine):
    """Low frequencies, which do not alias: the network gets nearly what it gets of the image without phase."""
    low = np.hypot(*np.mgrid[-32:32, -32:32]) < 24
    phases = (1, np.exp(0.7j), slow_phase(64, 64))
    plain, constant, slow = (
        engine.volumes.add("one.npy", npy_bytes(centred(IMAGE * phase) * low), "kspace") for phase in phases
    )
    assert "The slow phase, that of the central 24 x 24 frequencies, was taken out" in engine.volumes.describe(slow)["note"]
    (a, info_a), (b, info_b) = (engine.reconstruct(volume, 0, [0.6]) for volume in (plain, constant))
    np.testing.assert_allclose(a, b, atol=1e-2)  # rounding, which the norm makes large where there is nothing
    np.testing.assert_allclose(info_a["metrics"]["data_consistency"], info_b["metrics"]["data_consistency"], rtol=1e-2)
    measured_plain, measured_slow = (engine.volumes.measure(volume, 0)[1] for volume in (plain, slow))
    assert relative(measured_slow.net_input, measured_plain.net_input) < 0.05
    # without the map no real image explains what was measured, with it the zero-filled one does
    x, energy = np.asarray(measured_slow.net_input)[..., 0], np.square(np.abs(measured_slow.y.kspace)).sum()
    assert residual(x, measured_slow.y) < 5e-3 * energy
    assert residual(x, measured_slow.y._replace(maps=np.ones((1, 64, 64)))) > 0.1 * energy


def test_too_few_frequencies_for_sensitivities_are_reported(engine, monkeypatch):
    kspace = centred(smooth_coils(3, 64, 64) * IMAGE)[None]
    columns = np.arange(64) % 2 == 0
    columns[28:38] = True
    with pytest.raises(InputError, match="x.npy must be fully sampled in its central 12 x 12 .* 3 coils .* got 9 x 9"):
        engine.volumes.add("x.npy", npy_bytes(kspace * columns), "kspace")
    single_coil = engine.volumes.add("x.npy", npy_bytes(kspace[:, 0] * (np.arange(64) % 2 == 1)), "kspace")
    assert "so its phase stays" in engine.volumes.describe(single_coil)["note"]
    np.testing.assert_array_equal(engine.volumes.measure(single_coil, 0)[1].y.maps, 1)
    empty = engine.volumes.add("x.npy", npy_bytes(kspace * np.array([1, 0])[:, None, None, None]), "kspace")
    assert not engine.input_and_reference(empty, 1)[0].any()
    with monkeypatch.context() as patched:
        patched.setattr(measurement.coils, "sensitivities", lambda kspace, calibration: 0 * kspace)
        with pytest.raises(InputError, match="Slice 0 must show what several coils saw"):
            measurement.make_sample(engine.volumes.get(empty).kspace, 0)
    monkeypatch.setitem(sys.modules, "sigpy", None)
    with pytest.raises(InputError, match=r"x.npy has 3 coils. .* pip install hyperrecon_jax\[multicoil\]"):
        engine.volumes.add("x.npy", npy_bytes(kspace), "kspace")


def test_good_ones_that_differ_and_the_best(engine):
    """Against every lambda of the dense set, reconstructed singly."""
    lams = np.linspace(0, 1, 101)
    results = [engine.reconstruct("test", 2, [lam]) for lam in lams]
    psnr = np.array([info["metrics"]["psnr"] for _, info in results])
    chosen, _ = engine.select_diverse("test", 2, 4)
    index = [round(100 * lam) for (lam,) in chosen]
    assert len({*index}) == 4
    bar = min(np.percentile(psnr, 90), psnr.max() - module.GOOD_PSNR_GAP)
    assert (psnr[index] >= bar - 1e-3).all()
    images = np.stack([image.ravel() for image, _ in results])[psnr >= bar - 1e-3]
    furthest = np.linalg.norm(images[:, None] - images[None], axis=-1).max()
    np.testing.assert_allclose(np.linalg.norm(results[index[0]][0] - results[index[1]][0]), furthest, rtol=1e-3)
    for metric, sign in (("psnr", 1), ("mae", -1)):
        lam, value = engine.find_best("test", 2, metric)
        assert sign * value >= max(sign * info["metrics"][metric] for _, info in results[::10]) - 1e-4
        np.testing.assert_allclose(engine.reconstruct("test", 2, lam)[1]["metrics"][metric], value, rtol=1e-3)


def test_the_description_of_the_run(engine):
    run = engine.describe()
    assert run["lams"] == [{"low": "MAE", "high": "SSIM", "low_hint": "smoother", "high_hint": "sharper"}]
    assert (run["steps"], run["evaluation"], run["task"]) == (2, None, "2-fold under-sampled MRI")
    assert run["volumes"][0] | {"start": 0} == {
        "start": 0,
        "id": "test",
        "name": "test images",
        "slices": 3,
        "height": 16,
        "width": 16,
        "files": None,
        "kind": "image",
        "aspect": 1,
        "pixel": None,
        "letters": None,
        "plane": "acquired",
        "shown_plane": "",
        "planes": ["acquired"],
        "frame": 0,
        "frames": 1,
        "subjects": [],
        "truth": True,
        "note": "",
        "differences": [],
        "choices": [],
        "acquisition": "",
    }
    assert run["acquisitions"] is None
    images = np.random.default_rng(0).random((3, 16, 16)) * np.array([0.1, 1, 0.5])[:, None, None]
    assert engine.volumes.describe(engine.volumes.add("three.npy", npy_bytes(images)))["start"] == 1
    assert set(run["metric_facts"]) == {*run["metrics"], "data_consistency"}
    assert run["metric_facts"]["hfen"]["label"] == "HFEN"
    json.dumps(run, allow_nan=False)


@pytest.mark.slow
def test_the_landscape_is_shown_if_it_is_of_this_run_and_its_images(folder, engine):
    ds = evaluate(folder / "run", folder / "run" / "evaluation", points=3, say=lambda _: None)
    landscape = engine.describe()["evaluation"]
    np.testing.assert_allclose(landscape["axes"], [[0, 0.5, 1]])
    np.testing.assert_allclose(landscape["values"]["ssim"], ds["ssim"].mean("image"))
    ds["psnr"].values[:, 1] = np.inf  # a black slice that is matched exactly
    scores.save(folder / "run" / "evaluation" / "scores.nc", ds)
    values = engine.describe()["evaluation"]["values"]
    np.testing.assert_allclose(values["psnr"], ds["psnr"].isel(image=[0, 2]).mean("image"))
    assert set(values) == {"psnr", "ssim", "mae", "hfen"}
    assert engine.evaluation_note == ""
    evaluate(folder / "run", folder / "run" / "evaluation", points=3, count=2, say=lambda _: None)
    assert engine.describe()["evaluation"] is None
    assert "scores.nc holds no scores of all test images" in engine.evaluation_note


def test_exports_hold_the_image_and_its_metadata(engine):
    import nibabel
    from PIL import Image

    image, info = engine.reconstruct("test", 0, [0.25])
    name, content = exporting.export_slices(engine, "test", 0, [[0.25]], "npy")
    with np.load(io.BytesIO(content)) as archive:
        np.testing.assert_allclose(archive["image"].squeeze(), image, atol=1e-6)
        metadata = json.loads(str(archive["metadata"]))
    assert name == "test_images_0_lambda_0.25.npz"
    assert (metadata["run"], metadata["lambda"], metadata["slice"]) == ("run", "0.25", "0")
    assert float(metadata["psnr"]) == pytest.approx(info["metrics"]["psnr"], rel=1e-4)
    picture = Image.open(io.BytesIO(exporting.export_slices(engine, "test", 0, [[0.25]], "png", window=0.5, level=0.25)[1]))
    np.testing.assert_allclose(np.asarray(picture), np.clip(image / 0.5, 0, 1) * 255, atol=0.51)
    assert picture.text["lambda"] == "0.25"
    nifti = nibabel.Nifti1Image.from_bytes(gzip.decompress(exporting.export_slices(engine, "test", 0, [[0.25]], "nii")[1]))
    np.testing.assert_allclose(np.sort(np.asarray(nifti.dataobj).ravel()), np.sort(image.ravel()), atol=1e-6)
    name, content = exporting.export_slices(engine, "test", 0, [[0.25], [1.0]], "png")
    assert name == "test_images_0.zip"
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == [
        "test_images_0_lambda_0.25.png",
        "test_images_0_lambda_1.png",
    ]


def test_the_oldest_files_are_removed(engine, monkeypatch):
    ids = []
    monkeypatch.setattr(volume_store, "UPLOAD_CACHE_BYTES", 5 * 16 * 16 * 4)  # two slices and their files
    for seed in range(3):
        ids.append(engine.volumes.add("one.npy", npy_bytes(np.random.default_rng(seed).random((16, 16), np.float32))))
        engine.input_and_reference(ids[-1], 0)
    for call in (
        engine.input_and_reference,
        lambda *place: engine.reconstruct(*place, [0.5]),
        lambda *place: engine.find_best(*place, "psnr"),
    ):
        with pytest.raises(InputError, match="no volume .* any more"):
            call(ids[0], 0)
    engine.input_and_reference(ids[1], 0)
    assert engine.volumes.add("again.npy", npy_bytes(np.random.default_rng(2).random((16, 16), np.float32))) == ids[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.input_and_reference("none", 0), "no volume 'none'"),
        (lambda e: e.input_and_reference("test", 3), r"must be in \[0, 2\], got 3"),
        (lambda e: e.reconstruct("test", 0, [1.5]), r"must be in \[0, 1\], got 1.5"),
        (lambda e: e.reconstruct("test", 0, [float("nan")]), "got nan"),
        (lambda e: e.reconstruct("test", 0, [0.1, 0.2]), "1 for 2 loss terms"),
        (lambda e: e.select_diverse("test", 0, 1), r"must be in \[2, 24\], got 1"),
        (lambda e: e.find_best("test", 0, "beauty"), "must be one of psnr, .* got 'beauty'"),
        (lambda e: exporting.export_slices(e, "test", 0, [[0.1]], "jpg"), "must be one of png, npy, nii, dcm, got 'jpg'"),
        (lambda e: exporting.export_slices(e, "test", 0, [], "png"), "a lambda to export, got none"),
        (lambda e: e.volumes.add("x.npy", b"nonsense"), "x.npy"),
    ],
)
def test_mistakes_get_a_sentence(engine, call, message):
    with pytest.raises(InputError, match=message):
        call(engine)


@pytest.mark.slow
def test_three_losses_and_runs_with_nothing_to_move(folder):
    settings = json.loads((folder / "run" / "config.json").read_text())
    three = {
        **settings,
        "loss": {"terms": ("data_consistency", "total_variation", "mae"), "scales": (1.0, 1.0, 1.0)},
        "train": {"steps": 1, "batch": 4},
    }
    train.train(complete(three), folder / "three", say=lambda _: None)
    engine = Engine(folder / "three")
    assert [(lam["low"], lam["high"]) for lam in engine.describe()["lams"]] == [
        ("total variation + MAE", "J"),
        ("MAE", "total variation"),
    ]
    assert engine.reconstruct("test", 0, [0.5, 0.5])[0].shape == (16, 16)
    members = {**settings, "model": {"width": 2, "hyper_width": 0}, "lam": {"sampling": "ensemble", "axes": ((0.1, 0.7),)}}
    train.train(complete(members), folder / "members", say=lambda _: None)
    engine = Engine(folder / "members")
    assert sorted(engine.select_diverse("test", 0, 6)[0]) == [[0.1], [0.7]]
    ssim = [engine.reconstruct("test", 0, [lam])[1]["metrics"]["ssim"] for lam in (0.1, 0.7)]
    np.testing.assert_allclose(engine.find_best("test", 0, "ssim")[1], max(ssim), rtol=1e-5)
    fixed = {**settings, "model": {"width": 2, "hyper_width": 0}, "lam": {"sampling": "constant", "value": (0.5,)}}
    train.train(complete(fixed), folder / "fixed", say=lambda _: None)
    with pytest.raises(InputError, match="nothing to move"):
        Engine(folder / "fixed")
