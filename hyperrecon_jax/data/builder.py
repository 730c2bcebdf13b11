"""The synthetic population as a TensorFlow Datasets builder. TensorFlow itself is not needed.

`prepared.mni` is the way in; this module is apart from it so that only those who use the population import TFDS.
"""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from hyperrecon_jax.data import population
from hyperrecon_jax.data.dataset import Dataset

RECIPE = "1.0.0"  # raise it whenever `population.subject` or `population.split_seeds` gives other pixels


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
    """Splits `train`, `val` and `test` of one image an example, in order of subject, then slice."""

    VERSION = tfds.core.Version(RECIPE)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        features = {
            "image": tfds.features.Tensor(shape=(size, size, 1), dtype=np.uint16),  # intensity in [0, 1] x 65535
            "label": tfds.features.Tensor(shape=(size, size), dtype=np.uint8),  # indices into population.LABELS
            "subject": tfds.features.Scalar(dtype=np.int32),  # counted through all splits
            "slice": tfds.features.Scalar(dtype=np.int32),  # from inferior to superior
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=population.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        # The one line of progress goes on over the splits, which are generated in this order.
        every = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log file each update is a line
        bar = tqdm(total=sum(config.subjects), desc="preparing data", unit=" subjects", file=sys.stderr, mininterval=every)
        starts = np.cumsum((0, *config.subjects))
        seeds = population.split_seeds(config.seed, config.subjects)
        return {
            name: self._generate_examples(split, start, bar)
            for name, split, start in zip(Dataset._fields, seeds, starts, strict=False)
        }

    def _generate_examples(self, seeds: list[np.random.SeedSequence], start: int, bar: Any) -> Iterator[Any]:
        config = self.builder_config
        for subject, seed in enumerate(seeds, start=int(start)):
            images, labels = population.subject(seed, size=config.size, slices=config.slices)
            stored = np.rint(images * 65535).astype(np.uint16)
            for i in range(config.slices):
                example = {"image": stored[i], "label": labels[i], "subject": subject, "slice": i}
                yield subject * config.slices + i, example
            bar.update()
        if bar.n == bar.total:
            bar.close()
