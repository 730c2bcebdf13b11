"""Files to take away from the page: slices, a whole volume, and the scores of its slices."""

import csv
import datetime
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hyperrecon_jax
from hyperrecon_jax.data import volumes
from hyperrecon_jax.explorer.engine import NOTICE, Engine
from hyperrecon_jax.explorer.jobs import NOBODY, Job
from hyperrecon_jax.explorer.programs import METRICS
from hyperrecon_jax.runs.acquisitions import format_acquisition
from hyperrecon_jax.runtime.errors import InputError

FORMATS = ("png", "npy", "nii", "dcm")
VOLUME_FORMATS = ("nii", "dcm")
CONTENTS = ("result", "input", "truth")


def export_slices(
    engine: Engine,
    volume: str,
    index: int,
    lams: Sequence[Sequence[float]],
    format: str,
    *,
    content: str = "result",
    window: float = 1.0,
    level: float = 0.5,
    acquisition: str | None = None,
    job: Job = NOBODY,
) -> tuple[str, bytes]:
    """Images of a slice as a file: its name and bytes. For several lambdas it is a zip.

    Args:
        engine: the engine of the run.
        volume, index: which slice.
        lams: the lambdas of the reconstructions; the input and the truth have none, so the first one is enough.
        format: one of `FORMATS`; "npy" is an archive of NumPy with the image and its metadata.
        content: one of `CONTENTS`.
        window, level: the width and the centre of the gray scale of a PNG.
        acquisition: as in `Engine.input_and_reference`.
        job: who waits for it.
    """
    _check("format", format, FORMATS)
    _check("content", content, CONTENTS)
    if not lams:
        raise InputError("There must be a lambda to export, got none.")
    distinct = dict.fromkeys(engine.check_lambda(lam) for lam in lams) if content == "result" else {tuple(lams[0]): None}
    files = []
    for lam in distinct:
        image, metrics = _image(engine, volume, index, lam, content, acquisition, job)
        metadata = {**_metadata(engine, volume, lam, content, acquisition), "slice": str(index), **_to_text(metrics)}
        name = f"{_stem(engine, volume)}_{index}_{_suffix(lam, content)}"
        files.append(
            _slice_file(engine.volumes.get(volume, index).file, index, image, format, name, metadata, window, level)
        )
    if len(files) == 1:
        return files[0]
    return f"{_stem(engine, volume)}_{index}.zip", _zip(files)


def export_volume(
    engine: Engine,
    volume: str,
    lam: Sequence[float],
    format: str,
    *,
    content: str = "result",
    acquisition: str | None = None,
    job: Job = NOBODY,
) -> tuple[str, bytes]:
    """All slices of a volume at one lambda, with the geometry of its file: one NIfTI file, or a zip of DICOM files.

    The arguments are those of `export_slices`; `format` is one of `VOLUME_FORMATS`.
    """
    _check("format", format, VOLUME_FORMATS)
    _check("content", content, CONTENTS)
    lam = engine.check_lambda(lam)
    file = engine.volumes.get(volume).file
    metadata = _metadata(engine, volume, lam, content, acquisition)
    name = f"{_stem(engine, volume)}_all_{_suffix(lam, content)}"
    images = []
    with engine.volumes.hold(volume):
        for k in range(len(file.slices)):
            job.report("Slices", k / len(file.slices))
            images.append(_image(engine, volume, k, lam, content, acquisition, job)[0])
    job.report("Writing the file", 1.0)
    if format == "nii":
        return f"{name}.nii.gz", volumes.nifti(file, None, np.stack(images), metadata)
    files = volumes.dicom(file, None, np.stack(images), metadata)
    return f"{name}.zip", _zip([(f"{name}/{k:04d}.dcm", slice_file) for k, slice_file in enumerate(files)])


def export_scores(
    engine: Engine, volume: str, lam: Sequence[float], *, acquisition: str | None = None, job: Job = NOBODY
) -> tuple[str, bytes]:
    """The scores of all slices as a CSV file: a row for the result and one for the input of each slice.

    What is not known, such as a score without a truth, is an empty field.
    """
    lam = engine.check_lambda(lam)
    metadata = _metadata(engine, volume, lam, "scores", acquisition)
    subjects = engine.volumes.describe(volume)["subjects"]
    columns = ["slice", "subject", "image", *METRICS, "data_consistency", "noise_j", *metadata]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    name = f"{_stem(engine, volume)}_scores_{_suffix(lam, 'result')}.csv"
    count = len(engine.volumes.get(volume).file.slices)
    with engine.volumes.hold(volume):
        for k in range(count):
            job.report("Scores of slices", k / count)
            _, info = engine.input_and_reference(volume, k, acquisition=acquisition, job=job)
            _, result = engine.reconstruct(volume, k, lam, acquisition=acquisition, job=job)
            noise_j = info["noise"]["j"] if info["noise"] else None
            row = {**metadata, "slice": k, "subject": subjects[k] if subjects else None, "noise_j": noise_j}
            writer.writerow(row | {"image": "result"} | result["metrics"])
            writer.writerow(row | {"image": "input"} | info["metrics"])
    return name, stream.getvalue().encode()


def _check(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"The {name} must be one of {', '.join(choices)}, got {value!r}.")


def _image(
    engine: Engine, volume: str, index: int, lam: Sequence[float], content: str, acquisition: str | None, job: Job
) -> tuple[np.ndarray, dict[str, Any]]:
    """An image `(h, w)` of a slice and its scores."""
    if content == "result":
        image, info = engine.reconstruct(volume, index, lam, acquisition=acquisition, job=job)
        return image, info["metrics"]
    planes, info = engine.input_and_reference(volume, index, acquisition=acquisition, job=job)
    if content == "input":
        return planes[0], info["metrics"]
    if not info["truth"]:
        raise InputError("The truth is not known of this volume, so it cannot be exported.")
    return planes[1], {}


def _metadata(engine: Engine, volume: str, lam: Sequence[float], content: str, acquisition: str | None) -> dict[str, str]:
    """What a file says of its origin."""
    measured_at = engine.volumes.find_acquisition(volume, acquisition)
    return {
        "software": "hyperrecon_jax",
        "version": hyperrecon_jax.__version__,
        "notice": NOTICE,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": engine.run.resolve().name,
        "task": engine.volumes.describe_task(),
        **({} if measured_at is None else {"acquisition": format_acquisition(measured_at)}),
        "loss": ", ".join(engine.terms),
        "content": content,
        **({"lambda": ", ".join(f"{v:g}" for v in lam)} if content in ("result", "scores") else {}),
        "volume": engine.volumes.get(volume).name,
    }


def _to_text(metrics: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in metrics.items() if value is not None}


def _stem(engine: Engine, volume: str) -> str:
    """The start of a file's name: the name of the volume, of letters and digits."""
    name = Path(engine.volumes.get(volume).name).name
    return re.sub(r"\W+", "_", name.partition(".")[0]).strip("_") or "volume"


def _suffix(lam: Sequence[float], content: str) -> str:
    return f"lambda_{'_'.join(f'{v:g}' for v in lam)}" if content == "result" else content


def _slice_file(
    file: volumes.Volume,
    index: int,
    image: np.ndarray,
    format: str,
    name: str,
    metadata: dict[str, str],
    window: float,
    level: float,
) -> tuple[str, bytes]:
    """The name and the bytes of an image `(h, w)` of a slice."""
    if format == "png":
        pixels, pixel_size = volumes.crop(file, image), file.pixel_size
        return f"{name}.png", volumes.png(pixels, window=window, level=level, text=metadata, pixel_size=pixel_size)
    if format == "npy":
        return f"{name}.npz", volumes.npz(volumes.crop(file, image), metadata)
    if format == "dcm":
        return f"{name}.dcm", volumes.dicom(file, index, image, metadata)[0]
    return f"{name}.nii.gz", volumes.nifti(file, index, image, metadata)


def _zip(files: Sequence[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file_content in files:
            archive.writestr(name, file_content)
    return content.getvalue()
