"""The file of scores as other programs read it, and its statistics against plain loops and SciPy."""

import csv
import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.io import netcdf_file

from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runtime.errors import InputError

AXES = [np.linspace(0, 1, 4, dtype=np.float32), np.array([0.3, 0.7, 0.9], np.float32)]
SUBJECTS = np.array([7, 7, 3, 3, 3, 5, 9, 9])  # neither in order nor alike in size
ATTRS = {"config": {"steps": 3, "terms": ["mae", "ssim"]}, "lams": [0.5, 1], "split": "test", "seed": 2**40, "step": 300}


def make(lams=2, *, subjects=SUBJECTS, seed=0, attrs=ATTRS, **changed):
    """Random scores over `lams` axes."""
    rng = np.random.default_rng(seed)
    shape = (*(len(axis) for axis in AXES[:lams]), len(subjects))
    values = {"psnr": 30 + rng.random(shape, np.float32), "mae": rng.random(shape), "dice": rng.random(shape)} | changed
    input_values = {"psnr": 20 + rng.random(len(subjects))}
    index = np.arange(10, 10 + len(subjects))
    return scores.make_dataset(AXES[:lams], values, input_values=input_values, subjects=subjects, index=index, attrs=attrs)


def statistics_by_loop(values, subjects):
    """What `summary` says of one lambda, with SciPy's bootstrap."""
    means = [np.mean(values[subjects == subject]) for subject in np.unique(subjects)]
    options = {"n_resamples": scores.RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
    interval = stats.bootstrap((means,), np.mean, **options).confidence_interval
    moments = [np.mean(values), np.std(values, ddof=1), np.mean(means), np.std(means, ddof=1)]
    return [*moments, interval.low, interval.high]


@pytest.mark.parametrize("lams", [0, 1, 2])
def test_what_is_saved_is_loaded(tmp_path, lams):
    ds = make(lams)
    scores.save(tmp_path / "scores.nc", ds)
    xr.testing.assert_identical(scores.load(tmp_path / "scores.nc"), ds)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.nc"]
    assert ds["psnr"].dims == (*("lam_1", "lam_2")[:lams], "image")


def test_xarray_reads_the_file_without_us(tmp_path):
    scores.save(tmp_path / "scores.nc", make())
    with xr.open_dataset(tmp_path / "scores.nc") as ds:
        assert ds["psnr"].attrs == {"long_name": "peak signal-to-noise ratio", "units": "dB", "higher_is_better": 1}
        assert ds["mae"].attrs == {"long_name": "mean absolute error", "units": "1", "higher_is_better": 0}
        assert ds["input_psnr"].attrs["long_name"] == "peak signal-to-noise ratio of the network's input"
        assert ds["input_psnr"].dims == ("image",)
        assert ds["lam_2"].attrs == {"long_name": "lambda_2", "units": "1"}
        assert [ds.attrs[name] for name in ("split", "seed", "step")] == ["test", "1099511627776", 300]
        assert json.loads(ds.attrs["config"]) == ATTRS["config"]
        assert json.loads(ds.attrs["lams"]) == ATTRS["lams"]
        assert ds["psnr"].sel(lam_1=1, lam_2=0.3, image=12) == make()["psnr"][3, 0, 2]
        np.testing.assert_array_equal(ds["subject"], SUBJECTS)
        assert ds["psnr"].dtype == np.float32


def test_scipy_reads_the_file_without_xarray(tmp_path):
    ds = make()
    scores.save(tmp_path / "scores.nc", ds)
    with netcdf_file(tmp_path / "scores.nc", mmap=False) as file:
        assert file.dimensions == {"lam_1": 4, "lam_2": 3, "image": 8}
        assert file.split == b"test"
        psnr = file.variables["psnr"]
        assert (psnr.dimensions, psnr.units) == (("lam_1", "lam_2", "image"), b"dB")
        np.testing.assert_array_equal(psnr.data, ds["psnr"])
        np.testing.assert_array_equal(file.variables["subject"].data, SUBJECTS)
        assert not any(hasattr(variable, "_FillValue") for variable in file.variables.values())


def test_attributes_of_all_kinds(tmp_path):
    attrs = {"none": None, "yes": True, "text": "λ", "empty": "", "rate": 1e-3, "count": np.int64(3), "array": np.arange(2)}
    scores.save(tmp_path / "scores.nc", make(attrs=attrs))
    expected = {"yes": 1, "text": "λ", "empty": "", "rate": 1e-3, "count": 3, "array": "[0, 1]"}
    assert scores.load(tmp_path / "scores.nc").attrs == expected


def test_lambdas_are_the_decimals_they_were():
    ds = make()
    assert ds["lam_2"].values.tolist() == [0.3, 0.7, 0.9]
    np.testing.assert_array_equal(ds["lam_1"].values.astype(np.float32), AXES[0])
    ds = scores.make_dataset([jnp.asarray(AXES[1])], {}, input_values={}, subjects=[1], index=[0], attrs={})
    assert ds["lam_1"].values.tolist() == [0.3, 0.7, 0.9]


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "scores.nc"
    scores.save(path, make())

    def full(ds, file, **options):
        file.write_bytes(b"CDF")
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="No space left"):
        scores.save(path, make(seed=1))
    assert [file.name for file in tmp_path.iterdir()] == ["scores.nc"]
    xr.testing.assert_identical(scores.load(path), make())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="`path` must be a file of scores, but there is none at .*scores.nc"):
        scores.load(tmp_path / "scores.nc")


def test_a_file_cut_off_anywhere_is_damaged(tmp_path):
    path = tmp_path / "scores.nc"
    scores.save(path, make(0))
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="`path` must be a file of scores, but .*scores.nc is damaged"):
            scores.load(path)


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "scores.nc"
    path.write_text("psnr,ssim\n")
    with pytest.raises(InputError, match="is damaged or something else"):
        scores.load(path)
    scores.save(path, xr.Dataset({"t": ("x", np.arange(3.0))}))
    with pytest.raises(InputError, match="tells no subjects"):
        scores.load(path)


@pytest.mark.parametrize("lams", [0, 1, 2])
def test_summary_equals_a_loop_and_scipys_bootstrap(lams, monkeypatch):
    monkeypatch.setattr(scores, "BLOCK", 5)  # 12 lambdas are three blocks, the last cut short
    ds = make(lams)
    summary = scores.summarize(ds)
    assert summary["statistic"].values.tolist() == list(scores.STATISTICS)
    assert summary["psnr"].attrs == ds["psnr"].attrs
    assert summary["input_psnr"].dims == ("statistic",)
    for name in ds.data_vars:
        shape = ds[name].shape[:-1]
        assert summary[name].shape == (*shape, 6)
        for place in np.ndindex(shape):
            expected = statistics_by_loop(ds[name].values[place].astype(float), SUBJECTS)
            np.testing.assert_allclose(summary[name].values[place], expected, rtol=1e-10)
    xr.testing.assert_identical(scores.summarize(ds), summary)


def test_a_dimension_can_be_taken_out_first():
    ds, summary = make(), scores.summarize(make())
    xr.testing.assert_identical(scores.summarize(ds.isel(lam_1=2)), summary.isel(lam_1=2))
    assert len(scores.make_rows(scores.summarize(ds.isel(lam_1=2)))) == 3


@pytest.mark.parametrize("n", [1, 5])
def test_one_subject_is_a_point(n):
    summary = scores.summarize(make(1, subjects=np.full(n, 4)))
    mean = summary.sel(statistic="mean", drop=True)
    for name in ("subject_mean", "low", "high"):
        xr.testing.assert_allclose(summary.sel(statistic=name, drop=True), mean, rtol=1e-12)
    np.testing.assert_array_equal(summary["psnr"].sel(statistic="subject_sd"), 0)
    if n == 1:
        np.testing.assert_array_equal(summary["psnr"].sel(statistic="sd"), 0)


def test_infinite_psnrs_and_absent_classes_are_left_out():
    ds = make(1)
    psnr, dice = ds["psnr"].values, ds["dice"].values
    psnr[0, 2], dice[0, 2] = np.inf, np.nan  # one slice of subject 3
    psnr[1, 5], dice[1, 5] = np.inf, np.nan  # all of subject 5
    psnr[2], dice[2] = np.inf, np.nan
    summary = scores.summarize(ds)
    for name, value in (("psnr", psnr), ("dice", dice)):
        for i in (0, 1):
            finite = np.isfinite(value[i])
            expected = statistics_by_loop(value[i, finite].astype(float), SUBJECTS[finite])
            np.testing.assert_allclose(summary[name][i], expected, rtol=1e-10)
        assert np.isfinite(summary[name][3]).all()
    np.testing.assert_array_equal(summary["psnr"][2], [100, 0, 100, 0, 100, 100])
    np.testing.assert_array_equal(summary["dice"][2], np.full(6, np.nan))


def test_a_score_that_is_not_finite_is_not_hidden():
    ds = make(1)
    ds["mae"].values[0, 0], ds["mae"].values[1, 1] = np.inf, np.nan
    ds["psnr"].values[2, 0], ds["psnr"].values[3, 0] = np.nan, -np.inf
    summary = scores.summarize(ds)
    np.testing.assert_array_equal(np.isnan(summary["mae"]).all("statistic"), [True, True, False, False])
    np.testing.assert_array_equal(np.isnan(summary["psnr"]).all("statistic"), [False, False, True, True])
    assert scores.make_rows(scores.summarize(ds))[0]["mae_mean"] is None
    assert scores.find_best(scores.summarize(ds), "mae")[1] == summary["mae"].sel(statistic="mean")[2:].min()


@pytest.mark.parametrize("lams", [0, 1, 2])
def test_best_is_the_lambda_of_the_best_mean(lams):
    ds = make(lams)
    for metric, better in (("psnr", max), ("mae", min)):
        mean = ds[metric].values.astype(float).mean(-1)
        place = better(np.ndindex(mean.shape), key=lambda i, mean=mean: mean[i])
        lam, value = scores.find_best(scores.summarize(ds), metric)
        assert lam == tuple(float(str(axis[i])) for axis, i in zip(AXES, place, strict=False))
        assert value == pytest.approx(mean[place], rel=1e-12)


@pytest.mark.parametrize("lams", [0, 1, 2])
def test_rows_are_flat_and_finite_and_a_csv_file_says_the_same(tmp_path, lams):
    ds = make(lams)
    summary = scores.summarize(ds)
    rows = scores.make_rows(summary)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    names = [f"lam_{k + 1}" for k in range(lams)]
    columns = [f"{m}_{s}" for m in ("psnr", "mae", "dice") for s in scores.STATISTICS]
    points = list(itertools.product(*(ds[name].values for name in names)))
    assert [tuple(row[name] for name in names) for row in rows] == points
    for row, point in zip(rows, points, strict=True):
        assert list(row) == names + columns
        statistics = summary.sel(dict(zip(names, point, strict=True)))
        assert row["mae_low"] == statistics["mae"].sel(statistic="low")
        assert row["psnr_subject_sd"] == statistics["psnr"].sel(statistic="subject_sd")

    scores.write_csv(tmp_path / "scores.csv", scores.make_rows(scores.summarize(ds)))
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows_read = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows_read == rows
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_what_is_not_finite_is_empty_in_a_csv_file(tmp_path):
    ds = make(0)
    ds["mae"].values[0] = np.nan
    scores.write_csv(tmp_path / "scores.csv", scores.make_rows(scores.summarize(ds)))
    with (tmp_path / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["mae_mean"], float(row["dice_mean"])) == ("", pytest.approx(float(ds["dice"].mean())))


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"`psnr` must have shape \(4, 8\), got \(8, 4\)"):
        make(1, psnr=np.zeros((8, 4)))
    with pytest.raises(InputError, match="A metric must be one of psnr, .*; got 'sharpness'"):
        make(1, sharpness=np.zeros((4, 8)))
    options = {"values": {}, "input_values": {}, "subjects": [1, 2], "index": [0, 1], "attrs": {}}
    with pytest.raises(InputError, match=r"`input_psnr` must have shape \(2,\), got \(3,\)"):
        scores.make_dataset([], **options | {"input_values": {"psnr": np.zeros(3)}})
    with pytest.raises(InputError, match=r"`subject` must have shape \(2,\), got \(3,\)"):
        scores.make_dataset([], **options | {"subjects": [1, 2, 3]})
    with pytest.raises(InputError, match="`subjects` must be integers of 32 bits, got float64 from 1.0 to 2.5"):
        scores.make_dataset([], **options | {"subjects": [1.0, 2.5]})
    with pytest.raises(InputError, match="`index` must be integers of 32 bits, got int64 from 0 to 4294967296"):
        scores.make_dataset([], **options | {"index": [0, 2**32]})
    with pytest.raises(InputError, match=r"`axes` must be float \(l_k,\) each, got float64 of shape \(2, 2\)"):
        scores.make_dataset([np.zeros((2, 2))], **options)
    for name in ("ssim", "input_psnr", "lam_1"):
        with pytest.raises(InputError, match=f"`metric` must be one of psnr, mae, dice, got '{name}'"):
            scores.find_best(scores.summarize(make(1)), name)
    with pytest.raises(InputError, match="`metric` must be finite for some lambda, but the mean of 'mae' is not"):
        scores.find_best(scores.summarize(make(1, mae=np.full((4, 8), np.nan))), "mae")
