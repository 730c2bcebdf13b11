"""Acquisitions as text, for flags, folders and pages: "acceleration=4,sigma=0.02,mask=random_lines"."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from hyperrecon_jax.physics import masks
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.runs.task import acquisition_range, trained_range
from hyperrecon_jax.runtime.errors import InputError

LOWEST = {"acceleration": 1.0, "sigma": 0.0}


def parse_acquisitions(text: str, config: ConfigDict) -> list[Acquisition]:
    """The acquisitions that a text names, all combinations of its values, the last field fastest.

    Args:
        text: any of "acceleration=...", "sigma=..." and "mask=...", with commas between them; several values of a field
            have colons between them, such as "acceleration=2:4:8,mask=random_lines".
        config: settings of a run. Fields that the text lacks have the run's own value, or that of the middle of its range.

    Raises:
        InputError: for another text, an impossible value or one that is there twice, or a mask outside of the run's range.
    """
    if config.task.name != "csmri":
        raise InputError(f'The acquisition can be chosen for config.task.name "csmri" alone, got {config.task.name!r}.')
    fields: dict[str, list[Any]] = {name: [value] for name, value in default_acquisition(config)._asdict().items()}
    named = set()
    for part in text.split(","):
        name, equals, values = part.strip().partition("=")
        if name not in fields or not equals or name in named:
            raise InputError(f"An acquisition must be acceleration=..., sigma=... and mask=..., once each, got {part!r}.")
        named.add(name)
        fields[name] = [_parse_value(name, value.strip(), config) for value in values.split(":")]
        if len({*fields[name]}) < len(fields[name]):
            raise InputError(f"The values of an acquisition must differ from one another, got {part.strip()!r}.")
    return [Acquisition(*values) for values in itertools.product(*fields.values())]


def parse_acquisition(text: str, config: ConfigDict) -> Acquisition:
    """The only acquisition that a text names, as in `parse_acquisitions`; several raise `InputError`, too."""
    acquisitions = parse_acquisitions(text, config)
    if len(acquisitions) > 1:
        raise InputError(f"There must be one acquisition, got the {len(acquisitions)} of {text!r}.")
    return acquisitions[0]


def format_acquisition(acquisition: Acquisition) -> str:
    """The text of an acquisition, which `parse_acquisitions` reads."""
    return f"acceleration={acquisition.acceleration:g},sigma={acquisition.sigma:g},mask={acquisition.mask}"


def default_acquisition(config: ConfigDict) -> Acquisition:
    """The acquisition of `config.task`, or the middle of its range."""
    return trained_range(config).middle


def _parse_value(name: str, text: str, config: ConfigDict) -> float | str:
    if name == "mask":
        ranges = acquisition_range(config)  # the condition of a network knows no other masks
        return _parse_mask(text, ranges.masks if ranges else tuple(masks.MASKS))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not LOWEST[name] <= value < math.inf:
        raise InputError(f"The {name} of an acquisition must be a number of at least {LOWEST[name]:g}, got {text!r}.")
    return value


def _parse_mask(text: str, kinds: Sequence[str]) -> str:
    if text not in kinds:
        raise InputError(f"The mask of an acquisition must be one of {', '.join(kinds)}, got {text!r}.")
    return text
