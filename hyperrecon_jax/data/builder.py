"""The data sets that are prepared once, as TensorFlow Datasets builders. TensorFlow itself is not needed.

`prepared` and `from_files` are the ways in; this module is apart from them so that only those who prepare import TFDS. The
builders are ordinary ones: those of files take theirs from TFDS's `manual_dir`.

An example is a slice: "image" `(size, size, 1)` uint16, intensity in [0, 1] x 65535; where there are labels "label"
`(size, size)` uint8, indices into `population.LABELS`; where there are coils "kspace" and "maps" `(coils, size, size, 2)`
float32, real and imaginary part. Splits are in order of subject, then slice. The metadata tell "slices", of each subject of
each split, and where they came from.
"""

import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from hyperrecon_jax.data import abide, fastmri, folder, population, preparation
from hyperrecon_jax.data.preparation import SPLITS
from hyperrecon_jax.data.subject import Settings

RECIPE = "2.0.0"  # raise it whenever the same settings and files give other pixels, or examples another form


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


class MniPopulation(tfds.core.GeneratorBasedBuilder):
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
                slices={split: [config.slices] * count for split, count in zip(SPLITS, config.subjects, strict=True)}
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        # The one line of progress goes on over the splits, which are generated in this order.
        every = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log file each update is a line
        bar = tqdm(total=sum(config.subjects), desc="preparing data", unit=" subjects", file=sys.stderr, mininterval=every)
        seeds = population.split_seeds(config.seed, config.subjects)
        return {name: self._generate_examples(split, bar) for name, split in zip(SPLITS, seeds, strict=True)}

    def _generate_examples(self, seeds: list[np.random.SeedSequence], bar: Any) -> Iterator[Any]:
        config = self.builder_config
        for subject, seed in enumerate(seeds):
            images, labels = population.subject(seed, size=config.size, slices=config.slices)
            for i, (image, label) in enumerate(zip(_stored(images), labels, strict=True)):
                yield subject * config.slices + i, {"image": image, "label": label}
            bar.update()
        if bar.n == bar.total:
            bar.close()


@dataclasses.dataclass
class FilesConfig(tfds.core.BuilderConfig):
    """What is asked of somebody's files. `from_files` gives the name."""

    settings: Settings | None = None
    subjects: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0
    unfinished: Path = Path()  # where subjects that are read wait until all are
    workers: int = 1  # processes that read


class _Files(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Slices of the subjects below `manual_dir`, by the source of the class's name."""

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

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config, root = self.builder_config, Path(dl_manager.manual_dir)
        found = preparation.find(self.name, root, config.settings, subjects=config.subjects)
        splits, failed = preparation.read(
            self.name,
            found,
            config.settings,
            subjects=config.subjects,
            seed=config.seed,
            unfinished=config.unfinished,
            workers=config.workers,
        )
        self.info.metadata.update(
            root=str(root),
            files=preparation.fingerprint(root),
            subjects={split: [part.subject for part in parts] for split, parts in splits.items()},
            slices={split: [part.known["slices"] for part in parts] for split, parts in splits.items()},
            dropped={part.subject: part.known["dropped"] for parts in splits.values() for part in parts},
            unusable={part.subject: part.known["error"] for part in failed},
        )
        return {split: self._generate_examples(parts) for split, parts in splits.items()}

    def _generate_examples(self, parts: list[preparation.Part]) -> Iterator[Any]:
        key = 0
        for part in parts:
            image, label, coils, _ = preparation.slices(part)
            for i, stored in enumerate(_stored(image[..., None])):
                example = {"image": stored}
                if label is not None:
                    example["label"] = label[i]
                if coils is not None:
                    example |= {name: np.stack([c[i].real, c[i].imag], -1) for name, c in coils._asdict().items()}
                yield key, example
                key += 1


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


def prepare_files(config: FilesConfig, source: str, root: Path, cache: Path) -> None:
    """Prepare a set of somebody's files, and clear away what was kept for an interruption."""
    made = OF_FILES[source](config=config, data_dir=cache, file_format="array_record")
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    shutil.rmtree(config.unfinished)


def _stored(images: np.ndarray) -> np.ndarray:
    return np.rint(images * 65535).astype(np.uint16)
