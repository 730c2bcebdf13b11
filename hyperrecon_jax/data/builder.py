"""The data sets that are prepared once, as TensorFlow Datasets builders. TensorFlow itself is not needed.

`prepared` and `from_files` are the ways in; this module is apart from them so that only those who prepare import TFDS. The
builders are ordinary ones: those of files take theirs from TFDS's `manual_dir`.

An example is a slice: "image" `(size, size, 1)` uint16, intensity in [0, 1] x 65535; where there are labels "label"
`(size, size)` uint8, indices into `population.LABELS`; where there are coils "kspace" and "maps" `(coils, size, size, 2)`
float32, real and imaginary part. Splits are in order of subject, then slice. The metadata tell "slices", of each subject of
each split, and where they came from.

They are written shard by shard, whole subjects each. TFDS's `GeneratorBasedBuilder` would want TensorFlow for a split of
more than 1 GB, to sort it, and hold the whole of it in memory where the order is to stay.
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

from hyperrecon_jax.data import population, preparation
from hyperrecon_jax.data.dataset import Dataset
from hyperrecon_jax.data.sources import abide, fastmri, folder
from hyperrecon_jax.data.sources.subject import Settings

RECIPE = "2.0.0"  # raise it whenever the same settings and files give other pixels, or examples another form
SHARD = 2**28  # bytes that a file should have, and more of them in memory while it is written
MOST_SHARDS = 128  # of a split: each is a file that stays open

Shards = dict[str, list[Callable[[], Iterator[Any]]]]  # of each split, generators of (key, example)


def features(size: int, *, labels: bool, coils: int) -> tfds.features.FeaturesDict:
    """What an example holds."""
    found: dict[str, Any] = {"image": tfds.features.Tensor(shape=(size, size, 1), dtype=np.uint16)}
    if labels:
        found["label"] = tfds.features.Tensor(shape=(size, size), dtype=np.uint8)
    if coils:
        for name in ("kspace", "maps"):
            found[name] = tfds.features.Tensor(shape=(coils, size, size, 2), dtype=np.float32)
    return tfds.features.FeaturesDict(found)


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Every setting of a population. The name holds them all, for it names the folder of the cache."""

    size: int = 0
    subjects: tuple[int, int, int] = (0, 0, 0)
    slices: int = 0
    seed: int = 0

    @classmethod
    def of(cls, *, size: int, subjects: tuple[int, int, int], slices: int, seed: int) -> "Config":
        name = f"size{size}-subjects{'x'.join(map(str, subjects))}-slices{slices}-seed{seed}"
        return cls(name=name, size=size, subjects=subjects, slices=slices, seed=seed)


class MniPopulation(ShardBasedBuilder):
    """The synthetic population (`population.py`)."""

    VERSION = tfds.core.Version(RECIPE)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description=population.__doc__,
            features=features(config.size, labels=True, coils=0),
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
        # The one line of progress goes on over the splits, which are generated in this order.
        bar = preparation.progress(sum(config.subjects), "preparing data")
        size = config.slices * config.size**2 * 3
        seeds = population.split_seeds(config.seed, config.subjects)
        return {
            name: [partial(self._examples, shard, bar) for shard in _shards(list(enumerate(split)), size)]
            for name, split in zip(Dataset._fields, seeds, strict=True)
        }

    def _examples(self, subjects: list[tuple[int, np.random.SeedSequence]], bar: Any) -> Iterator[Any]:
        config = self.builder_config
        for subject, seed in subjects:
            images, labels = population.subject(seed, size=config.size, slices=config.slices)
            for i, (image, label) in enumerate(zip(_stored(images), labels, strict=True)):
                yield subject * config.slices + i, {"image": image, "label": label}
            _advance(bar)


@dataclasses.dataclass
class FilesConfig(tfds.core.BuilderConfig):
    """What is asked of somebody's files. `from_files` gives the name, which must be another for other settings."""

    settings: Settings | None = None
    subjects: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    root: Path | None = None  # the folder with the files; none given: TFDS's `manual_dir`
    unfinished: Path | None = None  # where subjects that are read wait until all are; none given: a folder in the cache
    workers: int = 1  # processes that read


class _Files(ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Slices of somebody's files, by the source of the class's name."""

    VERSION = tfds.core.Version(RECIPE)
    LABELS = False

    def _info(self) -> tfds.core.DatasetInfo:
        settings = self.builder_config.settings
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
            features=features(settings.size, labels=self.LABELS, coils=settings.coils),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(self, **options: Any) -> None:
        """As TFDS does, and clear away what was kept for an interruption."""
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
        found = preparation.find(self.name, root, config.settings, subjects=config.subjects)
        splits, failed = preparation.read(
            self.name,
            found,
            config.settings,
            subjects=config.subjects,
            seed=config.seed,
            unfinished=self._unfinished,
            workers=config.workers,
        )
        parts = [part for split in splits.values() for part in split]
        self.info.metadata.update(
            root=str(root),
            files={path: stamp for part in parts + failed for path, stamp in part.known["files"].items()},
            subjects={split: [part.subject for part in parts] for split, parts in splits.items()},
            slices={split: [part.known["slices"] for part in parts] for split, parts in splits.items()},
            dropped={part.subject: part.known["dropped"] for part in parts},
            unusable={part.subject: part.known["error"] for part in failed},
        )
        bar = preparation.progress(len(parts), "packing data")
        size = max(part.file.stat().st_size for part in parts if part.file)
        return {
            name: [partial(self._examples, shard, bar) for shard in _shards(split, size)] for name, split in splits.items()
        }

    def _examples(self, parts: list[preparation.Part], bar: Any) -> Iterator[Any]:
        for part in parts:
            image, label, coils, _ = preparation.slices(part)
            for i, stored in enumerate(_stored(image[..., None])):
                example = {"image": stored}
                if label is not None:
                    example["label"] = label[i]
                if coils is not None:
                    example |= {name: np.stack([c[i].real, c[i].imag], -1) for name, c in coils._asdict().items()}
                yield f"{part.subject}/{i}", example
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


OF_FILES = {"fastmri": Fastmri, "abide": Abide, "folder": Folder}


def _shards(subjects: list[Any], size: int) -> list[list[Any]]:
    """Subjects, of so many bytes each, that share a file."""
    count = min(len(subjects), MOST_SHARDS, max(1, len(subjects) * size // SHARD))
    ends = np.linspace(0, len(subjects), count + 1).astype(int)
    return [subjects[start:end] for start, end in itertools.pairwise(ends)]


def _advance(bar: Any) -> None:
    bar.update()
    if bar.n == bar.total:
        bar.close()


def _stored(images: np.ndarray) -> np.ndarray:
    return np.rint(images * 65535).astype(np.uint16)
