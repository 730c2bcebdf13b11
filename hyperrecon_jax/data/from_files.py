"""The prepared data sets of somebody's files: fastMRI, ABIDE, a folder. Prepared once, kept in the cache."""

import hashlib
import os
from pathlib import Path

from hyperrecon_jax.data import preparation, prepared
from hyperrecon_jax.data.sources.subject import Settings
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError


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

    What is not there yet is prepared. Afterwards the files themselves are not needed any more; those that are still there
    must be as they were. Files that came later are not looked at.

    Args:
        source: of `preparation.SOURCES`.
        root: the folder with the files.
        settings: what the source makes of them.
        subjects: how many for training, validation and test; no subject is in two.
        seed: of the split.
        cache: the folder for prepared data; by default that of `files.cache_folder`.
        workers: processes that prepare.

    Raises:
        InputError: if an argument is out of range, there are no such files or too few that can be used, one has changed
            since it was prepared, or the cache cannot be written.
    """
    if source not in preparation.SOURCES:
        raise InputError(f"`source` must be one of {', '.join(preparation.SOURCES)}, got {source!r}.")
    prepared.check(size=settings.size, subjects=subjects, slices=settings.slices, seed=seed)
    from hyperrecon_jax.data import builder  # here, because TFDS is slow to import

    home, raw = files.cache_folder(cache), Path(os.path.abspath(Path(root).expanduser()))
    if home.is_relative_to(raw) and not any(part.startswith(".") for part in home.relative_to(raw).parts):
        raise InputError(f"`cache` {home} must lie outside of `root` {raw}, or it would be taken for a part of it.")
    train, val, test = subjects
    name = f"size{settings.size}-subjects{'x'.join(map(str, subjects))}-{_digest(str(raw), settings, seed)}"
    folder = home / source / name / builder.RECIPE
    if not folder.exists():
        config = builder.FilesConfig(
            name=name,
            settings=settings,
            subjects=(train, val, test),
            seed=seed,
            root=raw,
            # The same for other splits, so that who was read for too many subjects is there for fewer.
            unfinished=home / "unfinished" / f"{source}-{_digest(str(raw), settings, builder.RECIPE)}",
            workers=workers,
        )
        with prepared.preparing(home, folder, 0):
            made = builder.OF_FILES[source](config=config, data_dir=home, file_format="array_record")
            made.download_and_prepare(download_dir=config.unfinished)
    elif file := preparation.changed(prepared.metadata(folder).get("files", {})):
        raise InputError(
            f"`root` {raw} must hold the files that were prepared, but {file} has changed since; delete {folder} to have"
            " them prepared again."
        )
    return folder


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:8]
