"""Prepare images for training: split by subject, cut, resampled, scaled; with a summary and a picture of them.

    python -m bin.prepare --source fastmri --root /data/knee/singlecoil_train --acquisition CORPD_FBK
    python -m bin.prepare --source abide --root /data/abide --workers 4
    python -m bin.prepare --source folder --root ~/scans --subjects 8,1,1 --size 128

The same command again goes on where it was stopped. Training with the same settings of `config.data` finds what is prepared
here; without this command it prepares first. The summary ends with the training command.
"""

import re

from absl import flags

from bin import _cli

SOURCE = flags.DEFINE_string("source", None, "mni (made from the carried template), fastmri, abide or folder.")
ROOT = flags.DEFINE_string("root", None, "Folder with the files.")
SIZE = flags.DEFINE_integer("size", None, "Pixels along both sides, a multiple of 8 (default: 256).")
SUBJECTS = flags.DEFINE_list("subjects", None, "How many for training, validation and test (default: 100,25,50).")
SLICES = flags.DEFINE_integer("slices", None, "Of each subject at most (default: 114).")
ACQUISITION = flags.DEFINE_string("acquisition", None, "Of fastmri: CORPD_FBK (PD), CORPDFS_FBK (PDFS), ...; default: all.")
COILS = flags.DEFINE_integer("coils", None, "Of fastmri: measured k-space of so many coils instead of images.")
WHITEN = flags.DEFINE_bool("whiten", None, "Make the noise of the coils white.")
SEED = flags.DEFINE_integer("seed", None, "Of the split by subject (default: 0).")
CACHE = flags.DEFINE_string("cache", None, "Folder for what is prepared (default: the user's cache folder).")
WORKERS = flags.DEFINE_integer("workers", None, "Processes that read (default: 1).")


def prepare() -> int:
    from hyperrecon_jax.commands import prepare  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.runtime.errors import InputError

    if SOURCE.value is None:
        raise InputError("Say what to prepare: --source folder --root FOLDER (see --help).")
    given = (SOURCE, ROOT, SIZE, SLICES, ACQUISITION, COILS, WHITEN, SEED, CACHE, WORKERS)
    settings = {flag.name: flag.value for flag in given if flag.value is not None}
    if SUBJECTS.value is not None:
        if not all(value.strip().isdecimal() for value in SUBJECTS.value):
            raise InputError(f"--subjects must be whole numbers, got {','.join(SUBJECTS.value)}.")
        settings["subjects"] = tuple(map(int, SUBJECTS.value))
    try:
        prepare.prepare({"data": settings, "train": {"batch": 1}})
    except InputError as error:  # settings are flags here
        raise InputError(re.sub(r"config\.data\.(\w+)", r"--\1", str(error))) from error
    return 0


if __name__ == "__main__":
    _cli.main(prepare)
