"""Prepare images for training: read them, split them by subject, cut, resample and scale them.

    hyperrecon prepare --source fastmri --root /data/knee/singlecoil_train --acquisition CORPD_FBK
    hyperrecon prepare --source abide --root /data/abide --workers 4
    hyperrecon prepare --source folder --root ~/scans --subjects 8,1,1 --size 128
    hyperrecon prepare --source folder --root ~/scans --include '*_t1.nii.gz' --exclude '*/old/*' --plane axial

It ends with a summary, a picture of some slices, and the command that trains on them. Training with the same settings of
`config.data` uses the images that are prepared here. Without this command, training prepares them first. The same command
again resumes a preparation that was interrupted.
"""

import re
from typing import Any

from absl import flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime.errors import InputError

SOURCE = flags.DEFINE_string("source", None, "mni or broad (made in the package), fastmri, abide or folder.")
ROOT = flags.DEFINE_string("root", None, "Folder with the files.")
SIZE = flags.DEFINE_integer("size", None, "Pixels along both sides, a multiple of 8 (default: 256).")
SUBJECTS = flags.DEFINE_list("subjects", None, "Subjects for training, validation and test (default: 100,25,50).")
SLICES = flags.DEFINE_integer("slices", None, "Slices of each subject at most (default: 114).")
ACQUISITION = flags.DEFINE_string("acquisition", None, "With fastmri: CORPD_FBK (PD), CORPDFS_FBK (PDFS) (default: all).")
COILS = flags.DEFINE_integer("coils", None, "Measured k-space of this number of coils, not images (fastmri, folder).")
WHITEN = flags.DEFINE_bool("whiten", None, "Whiten the noise of the coils.")
PLANE = flags.DEFINE_string("plane", None, "With folder: axial, coronal, sagittal or acquired (default: acquired).")
INCLUDE = flags.DEFINE_multi_string("include", None, "With folder: pattern of the files to read; may be given repeatedly.")
EXCLUDE = flags.DEFINE_multi_string("exclude", None, "With folder: pattern of files to leave out; may be given repeatedly.")
SEED = flags.DEFINE_integer("seed", None, "Seed of the split by subject (default: 0).")
CACHE = flags.DEFINE_string("cache", None, "Folder for the prepared images (default: the user's cache folder).")
WORKERS = flags.DEFINE_integer("workers", None, "Processes that read (default: 1).")


def prepare() -> int:
    """Prepare images by the flags; returns the exit status."""
    if SOURCE.value is None:
        raise InputError("Say what to prepare: --source folder --root FOLDER (see --help).")
    from hyperrecon_jax.commands import prepare as prepare_command  # after the flags: JAX takes seconds to import

    data_flags = (SOURCE, ROOT, SIZE, SLICES, ACQUISITION, COILS, WHITEN, PLANE, SEED, CACHE, WORKERS)
    settings: dict[str, Any] = {flag.name: flag.value for flag in data_flags if flag.value is not None}
    settings |= {flag.name: str(command.parse_path(flag)) for flag in (ROOT, CACHE) if flag.value is not None}
    _check_flags_of_source()
    settings |= {flag.name: tuple(flag.value) for flag in (INCLUDE, EXCLUDE) if flag.value is not None}
    if SUBJECTS.value is not None:
        if not all(re.fullmatch("[0-9]{1,18}", value.strip()) for value in SUBJECTS.value):
            raise InputError(f"--subjects must be whole numbers, got {','.join(SUBJECTS.value)}.")
        settings["subjects"] = tuple(map(int, SUBJECTS.value))
    try:
        prepare_command.prepare({"data": settings, "train": {"batch": 1}})
    except InputError as error:  # rename settings in the message to the user's flags
        raise InputError(re.sub(r"config\.data\.(\w+)", r"--\1", str(error))) from error
    return 0


def _check_flags_of_source() -> None:
    """Raise `InputError` for a flag that the source has no use for."""
    for useless, sources in (
        ((ROOT, WORKERS), ("mni", "broad")),
        ((ACQUISITION,), ("mni", "broad", "abide", "folder")),
        ((WHITEN,), ("mni", "broad", "abide")),
        ((PLANE, INCLUDE, EXCLUDE), ("mni", "broad", "fastmri", "abide")),
    ):
        for flag in useless:
            if flag.value is not None and SOURCE.value in sources:
                raise InputError(f"--{flag.name} is of no use with --source {SOURCE.value}.")


def main() -> None:
    command.run(prepare)
