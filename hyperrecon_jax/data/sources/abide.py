"""ABIDE, preprocessed with FreeSurfer 5.1: axial slices of skull-stripped T1-weighted brains, and their tissues.

These are the brains of the paper (Di Martino et al. 2014). You must download them yourself; `INSTRUCTIONS` says how.

    root/
      Pitt_0050003/mri/norm.mgz, aseg.mgz
      Pitt_0050004/mri/norm.mgz, aseg.mgz
      ...

A subject is a folder at any depth below `root`, or `root` itself. It holds the image `norm`, or else `brain`, and the
labels `aseg`, as `.mgz`, `.mgh`, `.nii.gz` or `.nii`. Its name is that of the folder, or of the folder above if the
folder is `mri`. FreeSurfer's average subjects (`fsaverage...`) do not count. The slices of a subject:

- They are axial, from foot to head, by the file's orientation. Anterior is up and the subject's LEFT IS ON THE LEFT, as in
  the synthetic brains of `population`.
- Values below 0 become 0, and all are divided by the largest of the volume. `volumes/intensity.py` has the rules for NaN
  and outliers.
- Labels are FreeSurfer's codes in the groups of `GROUPS`; every other code is background.
- A slice is dropped as "background alone" if, in the file's own pixels, no value is above 0 or no label is a tissue: some
  images reach a little beyond the tissues.
- `image_files.to_grid` resamples them. A conformed volume (256 x 256 x 256 voxels of 1 mm) stays as it is at `size` 256.
  A label goes to the nearest pixel.
- At most `slices` of them are used, evenly spaced.
"""

import os
from pathlib import Path

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources.base import EMPTY, Settings, Slices, list_notes
from hyperrecon_jax.data.sources.image_files import check_folder, read_stack, to_grid
from hyperrecon_jax.data.volumes.intensity import describe_scale, find_scale, is_ordinary, read_values, to_intensity
from hyperrecon_jax.data.volumes.stack import NoImageError, Stack
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

DOWNLOAD = "http://preprocessed-connectomes-project.org/abide has them for download (FreeSurfer 5.1)"
IMAGES = ("norm", "brain")  # names of the image; the first that exists is used
CODES = "aseg"
EXTENSIONS = (".mgz", ".mgh", ".nii.gz", ".nii")  # the first that exists is used
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

    Symbolic links are followed. A folder that several links lead to counts once.

    Raises:
        InputError: if `root` is no folder, holds no subject, or holds two subjects of the same name.
    """
    check_folder(root)
    subjects: dict[str, list[Path]] = {}
    visited = set()
    for folder_name, subfolders, names in os.walk(os.path.abspath(root), followlinks=True):
        subfolders.sort()
        real = os.path.realpath(folder_name)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        folder = Path(folder_name)
        subject = (folder.parent if folder.name == "mri" else folder).name
        name_set = set(names)
        files = [file for file in (_first_file(name_set, *IMAGES), _first_file(name_set, CODES)) if file]
        if not files or subject.startswith("fsaverage"):
            continue
        if subject in subjects:
            raise InputError(
                f"{root} must hold each subject once, but {subject} is in {subjects[subject][0].parent} and in {folder};"
                " were both read, a subject could be trained on and tested."
            )
        subjects[subject] = [folder / file for file in files]
    if not subjects:
        raise InputError(
            f"{root} must hold subjects as SUBJECT/mri/norm.mgz and SUBJECT/mri/aseg.mgz, but there is none; {DOWNLOAD}."
        )
    return dict(sorted(subjects.items()))


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of a subject; the docstring of this module says how they are made.

    Raises:
        InputError: if the image or the labels are missing, cannot be read or are of another kind, if they do not have the
            same positions, if no slice has content, or if `settings.coils` asks for k-space.
    """
    if settings.coils:
        raise InputError(f"ABIDE must be read with 0 coils, as it has no k-space, got {settings.coils}.")
    image_path, codes_path = _image_and_codes(files)
    image, codes = _read_volume(image_path), _read_volume(codes_path)
    if image.raw.shape != codes.raw.shape or not _same_positions(image, codes):
        raise InputError(
            f"{codes_path} must have the voxels of {image_path.name}, but it has {codes.raw.shape} and {image_path.name}"
            f" {image.raw.shape}{', elsewhere' if image.raw.shape == codes.raw.shape else ''}."
        )
    n = len(image.raw)
    labels = np.stack([_read_labels(codes_path, codes, k) for k in range(n)])
    file_name = str(image_path)
    scale = find_scale([(file_name, image)])
    scale = scale._replace(black=0.0, white=max(scale.white, 0.0))
    notes = [] if is_ordinary(scale) else ["; ".join(describe_scale(scale))]
    values = np.stack([to_intensity(read_values(file_name, image, k), scale).astype(np.float32) for k in range(n)])
    nonempty = np.flatnonzero(values.any(axis=(1, 2)) & labels.any(axis=(1, 2)))
    if not nonempty.size:
        raise InputError(
            f"{codes_path} must hold codes of FreeSurfer's aseg, such as 2, 3, 41 and 42, where {image_path.name} is above"
            " 0, but no slice has any."
        )
    selected = nonempty[evenly_spaced(nonempty.size, settings.slices)]
    return Slices(
        image=np.clip(to_grid(values[selected], image.affine, settings.size), 0, 1),
        label=to_grid(labels[selected], image.affine, settings.size, grid.resample_labels),
        coils=None,
        dropped={EMPTY: n - nonempty.size},
        notes=list_notes([(file_name, [*image.notes, *notes])]),
    )


def _image_and_codes(files: list[Path]) -> tuple[Path, Path]:
    """The file of the image and the file of the labels; raises `InputError` if one is missing."""
    by_name = {path.name.split(".")[0]: path for path in files}
    image_path = next((by_name[name] for name in IMAGES if name in by_name), None)
    if image_path is None:
        raise InputError(f"{files[0].parent} must hold the image norm.mgz or brain.mgz, but it is missing.")
    if CODES not in by_name:
        raise InputError(
            f"{image_path.parent} must hold the labels aseg.mgz beside {image_path.name}, but the labels are missing."
        )
    return image_path, by_name[CODES]


def _first_file(names: set[str], *stems: str) -> str | None:
    """The first file name that exists; None if there is none."""
    return next((stem + extension for stem in stems for extension in EXTENSIONS if stem + extension in names), None)


def _read_volume(path: Path) -> Stack:
    try:
        stack = read_stack(path, plane="axial")
    except NoImageError as error:
        raise InputError(f"{path} must be a volume in the MGH or NIfTI format, but it is none.") from error
    assert stack.affine is not None  # it has been cut by its affine
    # readers give slices as radiologists look at them, with the right on the left
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = stack.raw.shape[2] - 1
    return stack._replace(raw=stack.raw[:, :, ::-1], affine=stack.affine @ flip)


def _same_positions(image: Stack, codes: Stack) -> bool:
    """Whether the voxels of both lie at the same positions, to a micrometre."""
    assert image.affine is not None
    assert codes.affine is not None
    return np.allclose(image.affine, codes.affine, rtol=0, atol=1e-3)


def _read_labels(path: Path, stack: Stack, index: int) -> np.ndarray:
    """The labels of a slice, `(h, w)` uint8."""
    codes = read_values(str(path), stack, index)
    if (codes != np.rint(codes)).any():
        raise InputError(f"{path} must hold whole numbers, codes of tissues, but slice {index} has others.")
    return TISSUE[np.where((codes >= 0) & (codes < TISSUE.size), codes, 0).astype(np.intp)]
