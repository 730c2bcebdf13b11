"""ABIDE, preprocessed with FreeSurfer 5.1: axial slices of skull-stripped T1-weighted brains, and their tissues.

The brains of the paper (Di Martino et al. 2014), which everybody downloads for themselves: `INSTRUCTIONS` says how.

    root/
      Pitt_0050003/mri/norm.mgz, aseg.mgz
      Pitt_0050004/mri/norm.mgz, aseg.mgz
      ...

A subject is a folder at any depth below `root`, or `root` itself, with `norm` or else `brain` as the image and `aseg` as
the labels, as `.mgz`, `.mgh`, `.nii.gz` or `.nii`; it is named as its folder, or as the folder above if that is `mri`.
FreeSurfer's average subjects (`fsaverage...`) are no subjects. What is read of one:

- axial slices from foot to head, by the file's orientation; anterior is up and the subject's LEFT IS ON THE LEFT, as in
  the synthetic brains of `population`;
- values below 0 become 0, and all are divided by the largest of the volume;
- labels are FreeSurfer's codes in the groups of `GROUPS`; every other code is background;
- a slice is dropped as "background alone" if, in the file's own pixels, no value is above 0 or no label is a tissue: the
  image of some reaches a little beyond the tissues;
- `image_files.on_grid`: a conformed volume (256 x 256 x 256 voxels of 1 mm) stays as it is at `size` 256; labels go to the
  nearest pixel;
- at most `slices` of them, evenly_spaced evenly.
"""

import os
from pathlib import Path

import numpy as np

from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources import grid
from hyperrecon_jax.data.sources.image_files import check_folder, on_grid, stack
from hyperrecon_jax.data.sources.subject import EMPTY, Settings, Slices
from hyperrecon_jax.data.volumes.stack import Stack, magnitude
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runtime.errors import InputError

INSTRUCTIONS = """\
ABIDE Preprocessed, FreeSurfer 5.1 (http://preprocessed-connectomes-project.org/abide). Two files of each subject are
needed, from the public bucket fcp-indi, which asks for no account:

  https://s3.amazonaws.com/fcp-indi/data/Projects/ABIDE_Initiative/Outputs/freesurfer/5.1/<FILE_ID>/mri/norm.mgz
  https://s3.amazonaws.com/fcp-indi/data/Projects/ABIDE_Initiative/Outputs/freesurfer/5.1/<FILE_ID>/mri/aseg.mgz

or, of all subjects with Amazon's client:

  aws s3 sync --no-sign-request s3://fcp-indi/data/Projects/ABIDE_Initiative/Outputs/freesurfer/5.1 ROOT \\
      --exclude "*" --include "*/mri/norm.mgz" --include "*/mri/aseg.mgz"

Keep them as ROOT/<FILE_ID>/mri/norm.mgz and ROOT/<FILE_ID>/mri/aseg.mgz. A FILE_ID is a site and seven digits, such as
Pitt_0050003; the summary spreadsheet of that page lists them, and rows with `no_filename` have no files. The paper used
100, 25 and 50 subjects.

The data belong to ABIDE, not to this software. To our knowledge they are licensed CC BY-NC-SA 3.0 (attribution, no
commercial use, share alike); read the terms at http://fcon_1000.projects.nitrc.org/indi/abide before you use them. Cite
A. Di Martino et al., The autism brain imaging data exchange: towards a large-scale evaluation of the intrinsic brain
architecture in autism, Molecular Psychiatry 19, 2014, 659-667.
"""

IMAGES = ("norm", "brain")  # what to take as the image, in this order
CODES = "aseg"
EXTENSIONS = (".mgz", ".mgh", ".nii.gz", ".nii")  # which to take, in this order
GROUPS: dict[str, tuple[int, ...]] = {  # tissue -> codes of aseg; hemispheres in pairs
    # thalamus, caudate, putamen, pallidum, hippocampus, amygdala, accumbens, ventral diencephalon; cerebellar cortex
    "gray matter": (8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58, 28, 60),
    # cerebral and cerebellar white matter, brain stem, hypointensities, optic chiasm, corpus callosum
    "white matter": (2, 41, 7, 46, 16, 77, 85, 251, 252, 253, 254, 255),
    # lateral ventricles and their inferior horns, third, fourth and fifth ventricle, choroid plexus, vessels, CSF
    "CSF": (4, 43, 5, 44, 14, 15, 24, 31, 63, 72),
    "cortex": (3, 42),
}
TISSUE = np.zeros(256, np.uint8)  # code -> index into LABELS
for _name, _codes in GROUPS.items():
    TISSUE[list(_codes)] = LABELS.index(_name)


def find(root: Path, settings: Settings) -> dict[str, list[Path]]:
    """The files of each subject, image first; subjects in alphabetical order.

    Symbolic links are followed, and a folder that several lead to counts once.

    Raises:
        InputError: if `root` is no folder, holds no subject, or holds one of the same name twice.
    """
    check_folder(root)
    found: dict[str, list[Path]] = {}
    seen = set()
    for folder, below, names in os.walk(os.path.abspath(root), followlinks=True):
        below.sort()
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        at = Path(folder)
        name = (at.parent if at.name == "mri" else at).name
        listed = set(names)
        files = [file for file in (_first(listed, *IMAGES), _first(listed, CODES)) if file]
        if not files or name.startswith("fsaverage"):
            continue
        if name in found:
            raise InputError(
                f"{root} must hold each subject once, but {name} is in {found[name][0].parent} and in {at}; were both read,"
                " a subject could be trained on and tested."
            )
        found[name] = [at / file for file in files]
    if not found:
        raise InputError(f"{root} must hold subjects as SUBJECT/mri/norm.mgz and SUBJECT/mri/aseg.mgz, but there is none.")
    return dict(sorted(found.items()))


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of one subject, as the head of this module tells.

    Raises:
        InputError: if the image or the labels are missing, cannot be read or are no such thing, if they do not lie over
            each other, if no slice has content, or if `settings.coils` asks for k-space.
    """
    if settings.coils:
        raise InputError(f"ABIDE must be read with 0 coils, as it has no k-space, got {settings.coils}.")
    of = {path.name.split(".")[0]: path for path in files}
    where = next((of[name] for name in IMAGES if name in of), None)
    codes_where = of.get(CODES)
    if where is None:
        raise InputError(f"{files[0].parent} must hold the image norm.mgz or brain.mgz, but it is missing.")
    if codes_where is None:
        raise InputError(f"{where.parent} must hold the labels aseg.mgz beside {where.name}, but the labels are missing.")

    image, codes = _volume(where), _volume(codes_where)
    if image.raw.shape != codes.raw.shape or _apart(image, codes):
        raise InputError(
            f"{codes_where} must have the voxels of {where.name}, but it has {codes.raw.shape} and {where.name}"
            f" {image.raw.shape}{', elsewhere' if image.raw.shape == codes.raw.shape else ''}."
        )
    n = len(image.raw)
    labels = np.stack([_tissues(codes_where, codes, k) for k in range(n)])
    peaks = np.array([magnitude(str(where), image, k).max() for k in range(n)])
    kept = np.flatnonzero((peaks > 0) & labels.any(axis=(1, 2)))
    if not kept.size:
        raise InputError(
            f"{codes_where} must hold codes of FreeSurfer's aseg, such as 2, 3, 41 and 42, where {where.name} is above 0,"
            " but no slice has any."
        )
    chosen = kept[evenly_spaced(kept.size, settings.slices)]
    values = np.stack([np.clip(magnitude(str(where), image, k) / peaks.max(), 0, 1) for k in chosen])
    return Slices(
        image=np.clip(on_grid(values.astype(np.float32), image.affine, settings.size), 0, 1),
        label=on_grid(labels[chosen], image.affine, settings.size, grid.resample_labels),
        coils=None,
        dropped={EMPTY: n - kept.size},
    )


def _first(listed: set[str], *stems: str) -> str | None:
    return next((stem + extension for stem in stems for extension in EXTENSIONS if stem + extension in listed), None)


def _volume(path: Path) -> Stack:
    found = stack(path)
    if found.affine is None:
        raise InputError(f"{path} must be a volume in the MGH or NIfTI format, but it is none.")
    # readers give slices as radiologists look at them, with the right on the left
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = found.raw.shape[2] - 1
    return found._replace(raw=found.raw[:, :, ::-1], affine=found.affine @ flip)


def _apart(one: Stack, other: Stack) -> bool:
    """By more than a micrometre."""
    assert one.affine is not None
    assert other.affine is not None
    return not np.allclose(one.affine, other.affine, rtol=0, atol=1e-3)


def _tissues(where: Path, stack: Stack, index: int) -> np.ndarray:
    codes = magnitude(str(where), stack, index)
    if (codes != np.rint(codes)).any():
        raise InputError(f"{where} must hold whole numbers, codes of tissues, but slice {index} has others.")
    return TISSUE[np.where((codes >= 0) & (codes < TISSUE.size), codes, 0).astype(np.intp)]
