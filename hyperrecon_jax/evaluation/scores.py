"""The scores of a run as one self-describing file, and statistics over its images and subjects.

The file is NetCDF 3: xarray, MATLAB, ncdump and every other NetCDF reader open it without this package. A metric is a
variable over `lam_1`, ..., `lam_{K-1}` and `image`; that of the zero-filled input is `input_<metric>`, over `image` alone.
Each image has its place in the split (`image`) and its subject (`subject`); each variable has its name, its unit and
whether higher is better. Lambdas are as in `hyperparams.coefficients`.
"""

import csv
import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hyperrecon_jax.losses.metric_table import METRICS, check_name, included_values
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

SCORES = "scores.nc"  # the name of the file
STATISTICS = ("mean", "sd", "subject_mean", "subject_sd", "low", "high")
RESAMPLES = 1000  # number of bootstrap resamples
INTERVAL = (2.5, 97.5)  # per cent
BLOCK = 512  # lambdas whose resampled means are alive at a time


def make_dataset(
    axes: Sequence[Any],
    values: Mapping[str, Any],
    *,
    input_values: Mapping[str, Any],
    subjects: Any,
    index: Any,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Scores, with everything that is needed to read them.

    Args:
        axes: the K-1 axes of lambda, `(l_k,)` each.
        values: `{metric: (l_1, ..., l_{K-1}, n)}`, with names of `METRICS`.
        input_values: `{metric: (n,)}`, of the zero-filled input.
        subjects: `(n,)` integers, the subject of each image.
        index: `(n,)` integers, the place of each image in its split.
        attrs: attributes of the dataset. Text and numbers are stored unchanged, other values as JSON. None is left out.

    Raises:
        InputError: for an unknown metric or a wrong shape.
    """
    lams = {f"lam_{k}": _to_decimals(axis) for k, axis in enumerate(axes, start=1)}
    sizes = {key: len(axis) for key, axis in lams.items()} | {"image": len(index)}
    variables: dict[str, Any] = {key: ((*lams, "image"), value, _variable_attrs(key)) for key, value in values.items()}
    variables |= {
        f"input_{key}": (("image",), value, _variable_attrs(f"input_{key}")) for key, value in input_values.items()
    }
    coords: dict[str, Any] = {
        key: ((key,), axis, {"long_name": f"lambda_{key.removeprefix('lam_')}", "units": "1"}) for key, axis in lams.items()
    }
    coords |= {
        "image": (("image",), _to_int32(index, "index"), {"long_name": "place in the split"}),
        "subject": (("image",), _to_int32(subjects, "subjects"), {"long_name": "subject of the image"}),
    }
    for key, (dims, value, _) in (variables | coords).items():
        expected = tuple(sizes[dim] for dim in dims)
        if np.shape(value) != expected:
            raise InputError(f"`{key}` must have shape {expected}, got {np.shape(value)}.")
    arrays = {key: (dims, np.asarray(value), about) for key, (dims, value, about) in variables.items()}
    return xr.Dataset(arrays, coords, {key: _to_attribute(value) for key, value in attrs.items() if value is not None})


def save(path: Path, ds: xr.Dataset) -> None:
    """Write the file. An interruption leaves the previous file as it was."""
    with files.atomic_write(path) as unfinished:
        # No fill value: by default xarray declares NaN to be one in every variable, also in coordinates.
        ds.to_netcdf(unfinished, engine="scipy", encoding={name: {"_FillValue": None} for name in ds.variables})


def load(path: Path) -> xr.Dataset:
    """Read a file of `save` into memory.

    Raises:
        InputError: if the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"`path` must be a file of scores, but there is none at {path}.")
    try:
        ds = xr.load_dataset(path, engine="scipy", mmap=False)
    except Exception as error:  # SciPy fails on a damaged file with any exception
        raise InputError(f"`path` must be a file of scores, but {path} is damaged or something else.") from error
    if "subject" not in ds.coords:
        raise InputError(f"`path` must be a file of scores, but {path} tells no subjects.")
    return ds


def summarize(ds: xr.Dataset) -> xr.Dataset:
    """Replace the values over images by `STATISTICS` over them, along a last axis `statistic`.

    "mean" and "sd" are over slices. The others are over the means of the subjects, in which each subject has the same
    weight: "subject_mean", "subject_sd", and with "low" and "high" the 95 % interval of "subject_mean". That interval is
    the percentile bootstrap of `scipy.stats.bootstrap` over subjects, with fixed draws. Standard deviations divide by
    n - 1. For one slice or subject they are 0, and the interval is the value itself.

    A mean leaves out infinite PSNRs (of a black image that is matched exactly) and undefined Dice scores. If all PSNRs are
    infinite, they count as 100 dB. Any other value that is not finite makes all statistics of its lambda NaN.
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


def find_best(summary: xr.Dataset, metric: str) -> tuple[tuple[float, ...], float]:
    """The lambda `(K-1,)` with the best mean over slices, and that mean. Of equal means, the first.

    Args:
        summary: from `summarize`.
        metric: a metric of the summary.

    Raises:
        InputError: if the summary lacks the metric, or its mean is not finite for any lambda.
    """
    if metric not in summary or metric not in METRICS:
        raise InputError(f"`metric` must be one of {', '.join(_metric_names(summary))}, got {metric!r}.")
    lams = _lam_names(summary)
    mean = summary[metric].sel(statistic="mean").transpose(*lams).values
    if not np.isfinite(mean).any():
        raise InputError(f"`metric` must be finite for some lambda, but the mean of {metric!r} is not.")
    place = np.unravel_index((np.nanargmax if METRICS[metric].higher_is_better else np.nanargmin)(mean), mean.shape)
    return tuple(float(summary[name][i]) for name, i in zip(lams, place, strict=True)), float(mean[place])


def make_rows(summary: xr.Dataset) -> list[dict[str, float | None]]:
    """A flat record for each lambda of a summary: "lam_1", ..., then "psnr_mean", ... with all of `STATISTICS`.

    The last lambda runs fastest. A value that is not finite is None, so that the rows can be JSON.
    """
    lams, metrics = _lam_names(summary), _metric_names(summary)
    names = [*lams, *(f"{metric}_{statistic}" for metric in metrics for statistic in STATISTICS)]
    tables = [summary[metric].transpose(*lams, "statistic").values.reshape(-1, len(STATISTICS)) for metric in metrics]
    points = itertools.product(*(summary[name].values.tolist() for name in lams))
    rows = ([value if math.isfinite(value) else None for value in row] for row in np.concatenate(tables, 1).tolist())
    return [dict(zip(names, [*lam, *row], strict=True)) for lam, row in zip(points, rows, strict=True)]


def write_csv(path: Path, rows: Sequence[Mapping[str, float | None]]) -> None:
    """Write the rows as a table; None is empty. An interruption leaves the previous file as it was."""
    with files.atomic_write(path) as unfinished, unfinished.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _statistics(name: str, values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """`STATISTICS` for each of l lambdas, `(l, 6)`.

    Args:
        name: name of the variable.
        values: `(l, n)`, over images.
        member: `(n, subjects)`, 1 where an image is of a subject.
    """
    values = values.astype(np.float64)
    metric = name.removeprefix("input_")
    included = included_values(metric, values)
    if metric in METRICS and METRICS[metric].limit is not None:
        all_infinite = ~included.any(-1)
        values[all_infinite], included[all_infinite] = METRICS[metric].limit, True
    values[~np.isfinite(values)] = np.nan
    with np.errstate(invalid="ignore"):  # 0 / 0 where no image is included
        subject_means = np.where(included, values, 0) @ member / (included @ member)
        present = included @ member > 0
        columns = *_moments(values, included), *_moments(subject_means, present), *_interval(subject_means, present)
    return np.stack(columns, -1)


def _moments(values: np.ndarray, included: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the included values of each row."""
    number = included.sum(-1)
    mean = np.where(included, values, 0).sum(-1) / number
    squares = np.square(np.where(included, values - mean[:, None], 0)).sum(-1)
    return mean, np.sqrt(squares / np.where(number > 1, number - 1, number))


def _interval(values: np.ndarray, included: np.ndarray) -> np.ndarray:
    """Bootstrap interval of the mean of the included values of each row: `(2, rows)`."""
    interval = np.full((2, len(values)), np.nan)
    for pattern in {row.tobytes(): row for row in included}.values():  # nearly always a single one: all included
        same = (included == pattern).all(-1)
        if pattern.any():
            means = values[same][:, pattern] @ _resampling_weights(int(pattern.sum())).T
            interval[:, same] = np.percentile(means, INTERVAL, axis=-1, overwrite_input=True)
    return interval


@functools.cache
def _resampling_weights(number: int) -> np.ndarray:
    """The weight of each of `number` subjects in each resample, with SciPy's draws: `(RESAMPLES, number)`."""
    draws = np.random.default_rng(0).integers(0, number, (RESAMPLES, number))
    return np.apply_along_axis(np.bincount, 1, draws, minlength=number) / number


def _variable_attrs(key: str) -> dict[str, Any]:
    """The attributes of a variable."""
    name = key.removeprefix("input_")
    check_name(name)
    metric = METRICS[name]
    suffix = "" if key == name else " of the network's input"
    return {
        "long_name": metric.long_name + suffix,
        "units": metric.unit or "1",
        "higher_is_better": np.int32(metric.higher_is_better),
    }


def _to_int32(value: Any, name: str) -> np.ndarray:
    """Integers as NetCDF 3 can hold them."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.integer) or (value != value.astype(np.int32)).any():
        raise InputError(f"`{name}` must be integers of 32 bits, got {value.dtype} from {value.min()} to {value.max()}.")
    return value.astype(np.int32)


def _to_decimals(axis: Any) -> np.ndarray:
    """An axis as float64, in which a float32 becomes its shortest decimal: 0.3, not 0.30000001192092896.

    So `sel(lam_1=0.3)` works, and the conversion back to float32 gives the same number.
    """
    axis = np.asarray(axis)
    if axis.ndim != 1 or not np.issubdtype(axis.dtype, np.floating):
        raise InputError(f"`axes` must be float (l_k,) each, got {axis.dtype} of shape {axis.shape}.")
    return np.array([float(str(value)) for value in axis])


def _to_attribute(value: Any) -> Any:
    """A value as NetCDF 3 can hold it: text, floats and integers of 32 bits; larger integers and the rest as JSON."""
    value = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, (str, float)) or (isinstance(value, int) and -(2**31) <= value < 2**31):
        return int(value) if isinstance(value, bool) else value
    return json.dumps(value)


def _lam_names(ds: xr.Dataset) -> list[str]:
    return sorted(str(dim) for dim in ds.dims if str(dim).startswith("lam_"))


def _metric_names(ds: xr.Dataset) -> list[str]:
    return [str(name) for name in ds.data_vars if name in METRICS]
