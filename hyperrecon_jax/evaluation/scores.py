"""The scores of a run as one self-describing file, and what they come to.

The file is NetCDF 3: xarray, MATLAB, ncdump and all else that reads NetCDF open it without us. A metric is a variable
over `lam_1`, ..., `lam_{K-1}` and `image`; that of the network's input is `input_<metric>`, over `image` alone. An image
knows its place in the split (`image`) and its subject (`subject`); a variable knows its name, its unit and whether higher
is better. Lambdas are as in `hyperparams.coefficients`.
"""

import csv
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

# Long name, unit and whether higher is better.
METRICS = {
    "psnr": ("peak signal-to-noise ratio", "dB", True),
    "rpsnr": ("gain in peak signal-to-noise ratio over the network's input", "dB", True),
    "ssim": ("structural similarity", "1", True),
    "mae": ("mean absolute error", "1", False),
    "mse": ("mean squared error", "1", False),
    "hfen": ("high-frequency error norm", "1", False),
    "dice": ("Dice score", "1", True),
    "data_consistency": ("data consistency J = ||A x_hat - y||^2", "1", False),
    "total_variation": ("anisotropic total variation", "1", False),
    "wavelet_l1": ("l1 norm of the wavelet coefficients", "1", False),
    "weight_l1": ("l1 norm of the generated weights", "1", False),
    "loss": ("weighted loss", "1", False),
}
HIGHER = frozenset(name for name, (_, _, higher) in METRICS.items() if higher)
# Scores that are left out of means: of a black image that is matched exactly, and of a class that is in neither map.
LEFT_OUT: dict[str, Callable[[np.ndarray], np.ndarray]] = {"psnr": np.isposinf, "dice": np.isnan}
STATISTICS = ("mean", "sd", "subject_mean", "subject_sd", "low", "high")
RESAMPLES = 1000  # of the bootstrap
INTERVAL = (2.5, 97.5)  # per cent
BLOCK = 512  # lambdas whose resampled means are alive at a time


def dataset(
    axes: Sequence[Any],
    values: Mapping[str, Any],
    *,
    of_input: Mapping[str, Any],
    subjects: Any,
    index: Any,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Scores with all that is needed to read them.

    Args:
        axes: the K-1 axes of lambda, each `(l_k,)`.
        values: `{metric: (l_1, ..., l_{K-1}, n)}`, the metrics of `METRICS`.
        of_input: `{metric: (n,)}`, of the network's input.
        subjects: `(n,)` integers, the subject of each image.
        index: `(n,)` integers, the place of each image in its split.
        attrs: of the whole: text and numbers as they are, all else as JSON, None left out.

    Raises:
        InputError: for an unknown metric or a wrong shape.
    """
    lams = {f"lam_{k}": _decimal(axis) for k, axis in enumerate(axes, start=1)}
    sizes = {key: len(axis) for key, axis in lams.items()} | {"image": len(index)}
    variables: dict[str, Any] = {key: ((*lams, "image"), value, _about(key)) for key, value in values.items()}
    variables |= {f"input_{key}": (("image",), value, _about(f"input_{key}")) for key, value in of_input.items()}
    coords: dict[str, Any] = {
        key: ((key,), axis, {"long_name": f"lambda_{key.removeprefix('lam_')}", "units": "1"}) for key, axis in lams.items()
    }
    coords |= {
        "image": (("image",), _integers(index, "index"), {"long_name": "place in the split"}),
        "subject": (("image",), _integers(subjects, "subjects"), {"long_name": "subject of the image"}),
    }
    for key, (dims, value, _) in (variables | coords).items():
        expected = tuple(sizes[dim] for dim in dims)
        if np.shape(value) != expected:
            raise InputError(f"`{key}` must have shape {expected}, got {np.shape(value)}.")
    known = {key: (dims, np.asarray(value), about) for key, (dims, value, about) in variables.items()}
    return xr.Dataset(known, coords, {key: _attribute(value) for key, value in attrs.items() if value is not None})


def save(path: Path, ds: xr.Dataset) -> None:
    """Write a file, whole or not at all."""
    with files.atomic_write(path) as partial:
        # No fill value: without this, xarray declares NaN to be one in every variable, coordinates too.
        ds.to_netcdf(partial, engine="scipy", encoding={name: {"_FillValue": None} for name in ds.variables})


def load(path: Path) -> xr.Dataset:
    """What `save` wrote, in memory.

    Raises:
        InputError: if the file is missing, damaged or of something else.
    """
    if not path.is_file():
        raise InputError(f"`path` must be a file of scores, but there is none at {path}.")
    try:
        ds = xr.load_dataset(path, engine="scipy", mmap=False)
    except Exception as error:  # SciPy stumbles over a damaged file in every way
        raise InputError(f"`path` must be a file of scores, but {path} is damaged or something else.") from error
    if "subject" not in ds.coords:
        raise InputError(f"`path` must be a file of scores, but {path} tells no subjects.")
    return ds


def summary(ds: xr.Dataset) -> xr.Dataset:
    """The variables over images become statistics, along a last axis `statistic`.

    Over slices "mean" and "sd"; over the means of the subjects, each of which counts alike however many slices it has,
    "subject_mean", "subject_sd", and with "low" and "high" the 95 % interval of "subject_mean": that of
    `scipy.stats.bootstrap` by percentiles, which draws subjects, always the same ones. Deviations have n - 1 below, and
    are 0 for one slice or subject, whose interval is the point itself.

    An infinite PSNR, of a black image that is matched exactly, and an absent Dice score are left out; where all PSNRs are
    infinite they count as 100 dB. Any other score that is not finite makes all statistics of its lambda NaN.
    """
    _, subject = np.unique(ds["subject"].values, return_inverse=True)
    member = np.eye(subject.max() + 1)[subject]  # (n, subjects)
    variables = {}
    for name, values in ds.data_vars.items():
        flat = values.transpose(..., "image").values.reshape(-1, len(subject))
        blocks = [_statistics(str(name), flat[i : i + BLOCK], member) for i in range(0, len(flat), BLOCK)]
        dims = tuple(dim for dim in values.dims if dim != "image")
        shape = (*(values.sizes[dim] for dim in dims), len(STATISTICS))
        variables[name] = ((*dims, "statistic"), np.concatenate(blocks).reshape(shape), values.attrs)
    return xr.Dataset(variables, ds.drop_dims("image").coords, ds.attrs).assign_coords(statistic=list(STATISTICS))


def best(known: xr.Dataset, metric: str) -> tuple[tuple[float, ...], float]:
    """The lambda `(K-1,)` with the best mean over slices, the first of equals, and that mean, from a `summary`.

    Raises:
        InputError: if the metric is not there, or its mean is nowhere finite.
    """
    if metric not in known or metric not in METRICS:
        raise InputError(f"`metric` must be one of {', '.join(_metrics(known))}, got {metric!r}.")
    lams = _lams(known)
    mean = known[metric].sel(statistic="mean").transpose(*lams).values
    if not np.isfinite(mean).any():
        raise InputError(f"`metric` must be finite for some lambda, but the mean of {metric!r} is not.")
    place = np.unravel_index((np.nanargmax if metric in HIGHER else np.nanargmin)(mean), mean.shape)
    return tuple(float(known[name][i]) for name, i in zip(lams, place, strict=True)), float(mean[place])


def rows(known: xr.Dataset) -> list[dict[str, float | None]]:
    """A flat record for each lambda of a `summary`, the last running fastest: "lam_1", ..., then "psnr_mean", ...

    All of `STATISTICS` for each metric; None for what is not finite, so that it can be JSON.
    """
    lams, metrics = _lams(known), _metrics(known)
    names = [*lams, *(f"{metric}_{statistic}" for metric in metrics for statistic in STATISTICS)]
    tables = [known[metric].transpose(*lams, "statistic").values.reshape(-1, len(STATISTICS)) for metric in metrics]
    points = itertools.product(*(known[name].values.tolist() for name in lams))
    found = ([value if math.isfinite(value) else None for value in row] for row in np.concatenate(tables, 1).tolist())
    return [dict(zip(names, [*lam, *row], strict=True)) for lam, row in zip(points, found, strict=True)]


def write_csv(path: Path, table: Sequence[Mapping[str, float | None]]) -> None:
    """`rows` as a table, whole or not at all; what is not finite is empty."""
    with files.atomic_write(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def _statistics(name: str, values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """`STATISTICS` of `(l, n)` scores of images of subjects `member`, `(n, subjects)`: `(l, 6)`."""
    values = values.astype(np.float64)
    left_out = LEFT_OUT.get(name.removeprefix("input_"))
    counts = ~left_out(values) if left_out else np.ones(values.shape, bool)
    none = ~counts.any(-1) & np.isposinf(values).any(-1)
    values[none], counts[none] = 100.0, True  # dB
    values[~np.isfinite(values)] = np.nan
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing counts
        of_subject = np.where(counts, values, 0) @ member / (counts @ member)
        there = counts @ member > 0
        return np.stack([*_moments(values, counts), *_moments(of_subject, there), *_interval(of_subject, there)], -1)


def _moments(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of those of each row that count."""
    number = counts.sum(-1)
    mean = np.where(counts, values, 0).sum(-1) / number
    squares = np.square(np.where(counts, values - mean[:, None], 0)).sum(-1)
    return mean, np.sqrt(squares / np.where(number > 1, number - 1, number))


def _interval(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Bootstrap interval of the mean of those of each row that count: `(2, rows)`."""
    found = np.full((2, len(values)), np.nan)
    for pattern in {row.tobytes(): row for row in counts}.values():  # nearly always there is one: all
        same = (counts == pattern).all(-1)
        if pattern.any():
            means = values[same][:, pattern] @ _shares(int(pattern.sum())).T
            found[:, same] = np.percentile(means, INTERVAL, axis=-1, overwrite_input=True)
    return found


@functools.cache
def _shares(number: int) -> np.ndarray:
    """The share of each of `number` things in each resample, drawn as SciPy draws: `(RESAMPLES, number)`."""
    drawn = np.random.default_rng(0).integers(0, number, (RESAMPLES, number))
    return np.apply_along_axis(np.bincount, 1, drawn, minlength=number) / number


def _about(key: str) -> dict[str, Any]:
    """The attributes of a variable."""
    name = key.removeprefix("input_")
    if name not in METRICS:
        raise InputError(f"A metric must be one of {', '.join(METRICS)}; got {name!r}.")
    long_name, units, higher = METRICS[name]
    of_input = "" if key == name else " of the network's input"
    return {"long_name": long_name + of_input, "units": units, "higher_is_better": np.int32(higher)}


def _integers(value: Any, name: str) -> np.ndarray:
    """As NetCDF 3 can hold them."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.integer) or (value != value.astype(np.int32)).any():
        raise InputError(f"`{name}` must be integers of 32 bits, got {value.dtype} from {value.min()} to {value.max()}.")
    return value.astype(np.int32)


def _decimal(axis: Any) -> np.ndarray:
    """An axis as float64, where a float32 is the decimal number it was: 0.3, not 0.30000001192092896.

    So `sel(lam_1=0.3)` finds it, and as float32 it is the same number again.
    """
    axis = np.asarray(axis)
    if axis.ndim != 1 or not np.issubdtype(axis.dtype, np.floating):
        raise InputError(f"`axes` must be float (l_k,) each, got {axis.dtype} of shape {axis.shape}.")
    return np.array([float(str(value)) for value in axis])


def _attribute(value: Any) -> Any:
    """What NetCDF 3 can hold: text, floats and integers of 32 bits; a larger one is its digits."""
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, (str, float)) or (isinstance(value, int) and -(2**31) <= value < 2**31):
        return int(value) if isinstance(value, bool) else value
    return json.dumps(value)


def _lams(ds: xr.Dataset) -> list[str]:
    return sorted(str(dim) for dim in ds.dims if str(dim).startswith("lam_"))


def _metrics(ds: xr.Dataset) -> list[str]:
    return [str(name) for name in ds.data_vars if name in METRICS]
