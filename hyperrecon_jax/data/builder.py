"""The prepared data sets as builders of TensorFlow Datasets (TFDS). TensorFlow itself is not needed.

`prepare` is the way to use them; they are in a module apart, so that only those who prepare data import TFDS. They are
ordinary builders: those of files also read the folder `manual_dir` of TFDS.

An example is a slice. It holds "image" `(size, size, 1)` uint16, intensity in [0, 1] x 65535; with labels also "label"
`(size, size)` uint8, indices into `physics.sample.LABELS`; with coils also "kspace" and "maps" `(coils, size, size, 2)`
float32, real and imaginary part. Splits are in order of subject, then slice. The metadata hold "slices", the number of
slices of each subject of each split, and for files also where the slices came from.

The splits are written in shards of whole subjects. The `GeneratorBasedBuilder` of TFDS is no alternative: it needs
TensorFlow to sort a split of more than 1 GB, and where the order must stay it holds the split in memory.
"""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import ShardBasedBuilder

from hyperrecon_jax.data import broad, population
from hyperrecon_jax.data import subjects as file_subjects
from hyperrecon_jax.data.dataset import Dataset
from hyperrecon_jax.data.sources import abide, fastmri, folder
from hyperrecon_jax.data.sources.base import Settings

RECIPE = "2.0.0"  # raise it if you change the pixels of "mni" for the same settings, or change the format of the examples
FILES_RECIPE = "2.2.0"  # raise it if you change the pixels for the same settings and files
SHARD = 2**28  # bytes that a file should have; a little more than that is in memory while the file is written
MOST_SHARDS = 128  # the most shards of a split: each is a file that stays open

Shards = dict[str, list[Callable[[], Iterator[Any]]]]  # of each split, generators of (key, example)


def features(size: int, *, labels: bool, coils: int) -> tfds.features.FeaturesDict:
    """The arrays of an example."""
    tensors: dict[str, Any] = {"image": tfds.features.Tensor(shape=(size, size, 1), dtype=np.uint16)}
    if labels:
        tensors["label"] = tfds.features.Tensor(shape=(size, size), dtype=np.uint8)
    if coils:
        for name in ("kspace", "maps"):
            tensors[name] = tfds.features.Tensor(shape=(coils, size, size, 2), dtype=np.float32)
    return tfds.features.FeaturesDict(tensors)


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Every setting of synthetic data. The name holds all of them, because it names the folder in the cache."""

    size: int = 0
    subjects: tuple[int, int, int] = (0, 0, 0)
    slices: int = 0
    seed: int = 0

    @classmethod
    def create(cls, *, size: int, subjects: tuple[int, int, int], slices: int, seed: int) -> "Config":
        """A config with its name."""
        name = f"size{size}-subjects{'x'.join(map(str, subjects))}-slices{slices}-seed{seed}"
        return cls(name=name, size=size, subjects=subjects, slices=slices, seed=seed)


class _Info(tfds.core.DatasetInfo):
    """Facts of a data set that TFDS does not have in its storage. Its search there leaves an empty temporary folder."""

    def initialize_from_bucket(self) -> None:
        pass


class _Synthetic(ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Synthetic subjects. A subclass says what their slices are."""

    LABELS = False

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return _Info(
            builder=self,
            description=self.__doc__,
            features=features(config.size, labels=self.LABELS, coils=0),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                slices={
                    split: [config.slices] * count for split, count in zip(Dataset._fields, config.subjects, strict=True)
                }
            ),
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Shards:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        # One bar for all splits, which are generated in this order.
        bar = file_subjects.progress_bar(sum(config.subjects), "preparing data")
        subject_bytes = config.slices * config.size**2 * 3
        seeds = population.split_seeds(config.seed, config.subjects)
        return {
            split: [partial(self._examples, shard, bar) for shard in split_into_shards(numbered, subject_bytes)]
            for split, numbered in zip(Dataset._fields, [list(enumerate(group)) for group in seeds], strict=True)
        }

    def _examples(self, subjects: list[tuple[int, np.random.SeedSequence]], bar: Any) -> Iterator[Any]:
        config = self.builder_config
        for number, seed in subjects:
            for i, example in enumerate(self._slices(seed)):
                yield number * config.slices + i, example
            _advance(bar)

    def _slices(self, seed: np.random.SeedSequence) -> Iterator[dict[str, np.ndarray]]:
        """The examples of a subject."""
        raise NotImplementedError


class MniPopulation(_Synthetic):
    __doc__ = population.__doc__

    VERSION = tfds.core.Version(RECIPE)
    LABELS = True

    def _slices(self, seed: np.random.SeedSequence) -> Iterator[dict[str, np.ndarray]]:
        config = self.builder_config
        images, labels = population.synthesize_subject(seed, size=config.size, slices=config.slices)
        for image, label in zip(_to_uint16(images), labels, strict=True):
            yield {"image": image, "label": label}


class Broad(_Synthetic):
    __doc__ = broad.__doc__

    VERSION = tfds.core.Version(broad.RECIPE)

    def _slices(self, seed: np.random.SeedSequence) -> Iterator[dict[str, np.ndarray]]:
        config = self.builder_config
        for image in _to_uint16(broad.synthesize_subject(seed, size=config.size, slices=config.slices)):
            yield {"image": image}


@dataclasses.dataclass
class FilesConfig(tfds.core.BuilderConfig):
    """The settings of a data set of files. `prepare.files_folder` gives the name, which must differ for other settings."""

    settings: Settings | None = None
    subjects: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    root: Path | None = None  # the folder with the files; None: the `manual_dir` of TFDS
    unfinished: Path | None = None  # holds the subjects that are read, until all are; None: a folder in the cache
    workers: int = 1  # processes that read


class _Files(ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Slices of your files. The name of the subclass is the name of the source."""

    VERSION = tfds.core.Version(FILES_RECIPE)
    LABELS = False

    def _info(self) -> tfds.core.DatasetInfo:
        settings = self.builder_config.settings
        return _Info(
            builder=self,
            description=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
            features=features(settings.size, labels=self.LABELS, coils=settings.coils),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(self, **options: Any) -> None:
        """Prepare as TFDS does, then delete the files of the single subjects if the data set is complete."""
        try:
            super().download_and_prepare(**options)
        finally:
            if self.data_path.exists():
                shutil.rmtree(self._unfinished, ignore_errors=True)

    @property
    def _unfinished(self) -> Path:
        config = self.builder_config
        return config.unfinished or Path(self.data_dir_root, "unfinished", self.name, config.name)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Shards:
        config = self.builder_config
        root = config.root or Path(dl_manager.manual_dir).absolute()
        files = file_subjects.find_subjects(self.name, root, config.settings, counts=config.subjects)
        splits, failed = file_subjects.read_subjects(
            self.name,
            files,
            config.settings,
            counts=config.subjects,
            seed=config.seed,
            unfinished=self._unfinished,
            workers=config.workers,
        )
        usable = [subject for group in splits.values() for subject in group]
        self.info.metadata.update(
            root=str(root),
            files={path: stamp for subject in usable + failed for path, stamp in subject.summary["files"].items()},
            subjects={split: [subject.subject for subject in group] for split, group in splits.items()},
            slices={split: [subject.summary["slices"] for subject in group] for split, group in splits.items()},
            dropped={subject.subject: subject.summary["dropped"] for subject in usable},
            notes={subject.subject: subject.summary["notes"] for subject in usable},
            skipped={subject.subject: subject.summary["skipped"] for subject in usable},
            excluded=file_subjects.count_excluded(self.name, root, config.settings),
            unusable={subject.subject: subject.summary["error"] for subject in failed},
        )
        bar = file_subjects.progress_bar(len(usable), "packing data")
        subject_bytes = max(subject.file.stat().st_size for subject in usable if subject.file)
        return {
            split: [partial(self._examples, shard, bar) for shard in split_into_shards(group, subject_bytes)]
            for split, group in splits.items()
        }

    def _examples(self, subjects: list[file_subjects.SubjectFile], bar: Any) -> Iterator[Any]:
        for subject in subjects:
            image, label, coils = file_subjects.load_slices(subject)[:3]
            for i, pixels in enumerate(_to_uint16(image[..., None])):
                example = {"image": pixels}
                if label is not None:
                    example["label"] = label[i]
                if coils is not None:
                    example |= {name: np.stack([c[i].real, c[i].imag], -1) for name, c in coils._asdict().items()}
                yield f"{subject.subject}/{i}", example
            _advance(bar)


class Fastmri(_Files):
    """fastMRI knee and brain (`fastmri.py`)."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = fastmri.INSTRUCTIONS


class Abide(_Files):
    """ABIDE with FreeSurfer's segmentation (`abide.py`)."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = abide.INSTRUCTIONS
    LABELS = True


class Folder(_Files):
    """A folder of NIfTI, DICOM, pictures, HDF5 or NumPy files (`folder.py`)."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = folder.__doc__


SYNTHETIC_BUILDERS = {"mni": MniPopulation, "broad": Broad}
FILE_BUILDERS = {"fastmri": Fastmri, "abide": Abide, "folder": Folder}


def split_into_shards(subjects: list[Any], subject_bytes: int) -> list[list[Any]]:
    """Groups of neighbouring subjects; each group shares a file of about `SHARD` bytes."""
    count = min(len(subjects), MOST_SHARDS, max(1, len(subjects) * subject_bytes // SHARD))
    ends = np.linspace(0, len(subjects), count + 1).astype(int)
    return [subjects[start:end] for start, end in itertools.pairwise(ends)]


def _advance(bar: Any) -> None:
    bar.update()
    if bar.n == bar.total:
        bar.close()


def _to_uint16(images: np.ndarray) -> np.ndarray:
    return np.rint(images * 65535).astype(np.uint16)
