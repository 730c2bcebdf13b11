"""What the page says of a run's task and of a volume."""

from typing import Any

from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.explorer.open_volume import OpenVolume
from hyperrecon_jax.physics.acquisition import Acquisition, AcquisitionRange, describe_excess


def describe_task(config: Any, ranges: AcquisitionRange | None) -> str:
    """The task of a run in words; `ranges` are its acquisitions, if it has a range of them."""
    task = config.task
    if ranges:
        (low, high), (weakest, strongest), _ = ranges
        return f"{low:g} to {high:g}-fold under-sampled MRI, noise {weakest:g} to {strongest:g}"
    noise = f", noise {task.sigma:g}" if task.sigma else ""
    return {
        "csmri": f"{task.acceleration:g}-fold under-sampled MRI{noise}",
        "denoising": f"denoising{noise}",
        "super_resolution": f"{task.factor}-fold super-resolution{noise}",
    }[task.name]


def describe_volume(volume: str, entry: OpenVolume, ranges: AcquisitionRange | None) -> dict[str, Any]:
    """A volume for the page.

    Id, name, size, the first slice, whether the reference is known, what was done to the file and how it differs from the
    training images; and
    - `aspect`: the height of a pixel divided by its width; `pixel`: both in mm, None if they are not known;
    - `letters` of the edges of the picture, None if it is not known how the slices lie;
    - `files`: equal for all volumes of the files that were dropped together, None for the test images;
    - `plane` as it was chosen, `shown_plane` as it is, "" if that is not known, `planes` that can be chosen;
    - `frame`, the volume of a file that holds `frames` volumes;
    - `choices`: the fields of the acquisition that the user may choose; `acquisition`: what was read off the data.
    """
    file, upload = entry.file, entry.upload
    (h, w), is_placed = file.slices.shape[-2:], file.affine is not None and file.space > 0
    return {
        "id": volume,
        "files": entry.files,
        "name": entry.name,
        "kind": file.kind,
        "slices": len(file.slices),
        "height": h,
        "width": w,
        "aspect": file.pixel_size[0] / file.pixel_size[1],
        "pixel": list(file.pixel_size) if file.is_metric else None,
        "letters": geometry.edge_letters(file.affine) if is_placed and file.affine is not None else None,
        "plane": upload.plane if upload else geometry.ACQUIRED,
        "shown_plane": geometry.plane_of(file.affine) if is_placed and file.affine is not None else "",
        "planes": list(geometry.PLANES) if is_placed and file.kind == "image" else [geometry.ACQUIRED],
        "frame": upload.frame if upload else 0,
        "frames": file.frames,
        "start": entry.start,
        "subjects": entry.subjects,
        "truth": entry.has_reference,
        "note": entry.note,
        "differences": list(entry.differences),
        "choices": _choices(entry, ranges),
        "acquisition": _describe_estimate(entry, ranges),
    }


def _choices(entry: OpenVolume, ranges: AcquisitionRange | None) -> list[str]:
    """The fields of the acquisition that the user may choose."""
    if ranges is None or (entry.estimate is not None and not entry.has_reference):
        return []
    return [name for name in Acquisition._fields if name != "sigma" or entry.estimate is None]


def _describe_estimate(entry: OpenVolume, ranges: AcquisitionRange | None) -> str:
    """What was read off measured k-space, in words, and how it differs from what the network was trained for."""
    if entry.estimate is None or ranges is None:
        return ""
    acceleration, sigma, mask = entry.estimate
    if entry.has_reference:
        facts, acquisition = f"Noise {sigma:.2g}", ranges.middle._replace(sigma=sigma)
    else:
        facts, acquisition = f"{acceleration:.1f}-fold, noise {sigma:.2g}, {mask.replace('_', ' ')}", entry.estimate
    return " ".join([f"{facts}: read off the data.", *describe_excess(ranges, acquisition)])
