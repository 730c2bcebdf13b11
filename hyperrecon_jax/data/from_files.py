"""The prepared data sets of somebody's files: fastMRI, ABIDE, a folder. Prepared once, kept in the cache."""

import hashlib
import os
from pathlib import Path

from hyperrecon_jax.data import prepared
from hyperrecon_jax.data.preparation import fingerprint
from hyperrecon_jax.data.subject import Settings
from hyperrecon_jax.errors import InputError


def files_folder(
    source: str,
    *,
    root: str | os.PathLike[str],
    settings: Settings,
    subjects: tuple[int, int, int],
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    workers: int = 1,
) -> Path:
    """The folder of the prepared slices of the subjects in `root`, split by subject (Sec. V-A), for `prepared.read`.

    What is not there yet is prepared. Afterwards the files themselves are not needed any more.

    Args:
        source: of `preparation.SOURCES`.
        root: the folder with the files.
        settings: what the source makes of them.
        subjects: how many for training, validation and test; no subject is in two.
        seed: of the split.
        cache: the folder for prepared data; by default that of `prepared.cache_folder`.
        workers: processes that prepare.

    Raises:
        InputError: if there are no such files or too few that can be used, if they have changed since they were prepared,
            or the cache cannot be written.
    """
    from hyperrecon_jax.data import builder  # here, because TFDS is slow to import

    home, raw = prepared.cache_folder(cache), Path(root).expanduser().absolute()
    which = hashlib.sha256(repr((str(raw), settings, seed)).encode()).hexdigest()[:8]
    name = f"size{settings.size}-subjects{'x'.join(map(str, subjects))}-{which}"
    folder = home / source / name / builder.RECIPE
    if not folder.exists():
        config = builder.FilesConfig(
            name=name,
            settings=settings,
            subjects=subjects,
            seed=seed,
            unfinished=home / "unfinished" / source / name,
            workers=workers,
        )
        with prepared.preparing(home, folder, 0):
            builder.prepare_files(config, source, raw, home)
    elif raw.is_dir() and fingerprint(raw) != prepared.metadata(folder)["files"]:
        raise InputError(
            f"`root` {raw} must hold the files that were prepared, but they have changed since; delete {folder} to have"
            " them prepared again, or name another folder."
        )
    return folder
