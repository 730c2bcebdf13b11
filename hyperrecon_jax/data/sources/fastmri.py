"""fastMRI: knees of one coil or many, and brains, as magnitude images or as measured k-space. Also raw data of ISMRMRD.

Images (`coils=0`): from `reconstruction_esc`, else `reconstruction_rss`, else the root of the sum of squares of the inverse
transform of `kspace`, cropped to the field of view of the image (`volumes/field_of_view.py`). Nothing else is cut. Both
axes are flipped for display. A file is a volume with one scale; `image_slices.py` has the steps, with `folder`.

K-space (`coils > 0`): `scans.py` has the steps.

A file with a `mask`, or with lines that are missing in its k-space, holds no truth and is refused. Lines of zeros at the
ends of k-space are the scanner's padding, no missing lines.
"""

from pathlib import Path

from hyperrecon_jax.data.sources.base import Settings, Slices
from hyperrecon_jax.data.sources.fastmri_file import open_file, open_scan, read_images, text_attribute
from hyperrecon_jax.data.sources.image_files import files_below
from hyperrecon_jax.data.sources.image_slices import make_slices
from hyperrecon_jax.data.sources.scans import explain_empty, read_measured
from hyperrecon_jax.runtime.errors import InputError

INSTRUCTIONS = """\
fastMRI is free for research and education, but only its owners may hand it out: register at https://fastmri.med.nyu.edu/,
accept the data sharing agreement of NYU Langone Health, which forbids to pass the data on, and download by the links that
come by mail. Unpack the archives (singlecoil_train, singlecoil_val, multicoil_train, multicoil_val, brain_multicoil_...)
into one folder; its .h5 files are found at any depth. Those of the test and challenge sets are under-sampled and hold no
truth. Please cite Zbontar et al., arXiv:1811.08839 (2018), and Knoll et al., Radiology: AI 2:e190007 (2020)."""
DOWNLOAD = "register at https://fastmri.med.nyu.edu/ to get them, and unpack the archives of train and val into this folder"


def find(root: Path, settings: Settings) -> dict[str, list[Path]]:
    """The subjects below `root`, each with its `.h5` files; both in order of their names.

    All files with the same `patient_id` are one subject. Without that attribute, files of the same name are, because
    fastMRI gives a scan the same name in its archives of one coil and of many. A file that cannot be opened is a subject
    of its own, so that `read` can say what is wrong with it. Symbolic links are followed, each folder once. Hidden files,
    such as those of macOS in archives, are ignored.

    Raises:
        InputError: if there are no such files, or none with `settings.acquisition`.
    """
    paths = sorted(path for path in files_below(Path(root)) if _is_scan(path.name))
    if not paths:
        raise InputError(f"{root} must hold the .h5 files of fastMRI, but there are none; {DOWNLOAD}.")
    subjects: dict[str, list[Path]] = {}
    damaged: dict[str, list[Path]] = {}
    other_acquisitions = set()
    for path in paths:
        try:
            with open_file(path) as file:
                patient, acquisition = (text_attribute(file.attrs.get(key)) for key in ("patient_id", "acquisition"))
        except InputError:
            damaged[str(path.relative_to(root))] = [path]
            continue
        if settings.acquisition in ("", acquisition):
            subjects.setdefault(patient or path.name, []).append(path)
        else:
            other_acquisitions.add(acquisition or "none")
    if other_acquisitions and not subjects:
        raise InputError(
            f"`acquisition` must be one of those below {root}, {', '.join(sorted(other_acquisitions))}, got"
            f" {settings.acquisition!r}."
        )
    for name, files in damaged.items():
        subjects[name] = subjects.get(name, []) + files
    return dict(sorted(subjects.items()))


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of a subject, from all its files.

    Raises:
        InputError: if a file is damaged, lacks its datasets, is under-sampled, has other shapes than those of fastMRI or
            holds infinity, or NaN in k-space; if no slice has content; if a file has maps of another number of coils than
            `settings.coils`.
    """
    if settings.coils:
        return read_measured(files, settings, open_scan, flip=True)
    slices = make_slices([[(str(path), read_images(path))] for path in files], settings, flip=True)
    if slices is None:
        raise InputError(explain_empty(files))
    return slices


def _is_scan(name: str) -> bool:
    """Whether a file of this name is one to read."""
    return name.lower().endswith(".h5") and not name.startswith(".")
