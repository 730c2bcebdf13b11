"""The rules for the settings of an experiment, as far as they can be checked without the data.

`CHOICES` and `RANGES` hold the rules for one setting at a time. The functions below them hold the rules that connect
several settings.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from hyperrecon_jax.data.subjects import SOURCES as FILES
from hyperrecon_jax.data.volumes.geometry import PLANES
from hyperrecon_jax.losses.objective import SUPERVISED, TERMS
from hyperrecon_jax.models.hypernet import ENCODINGS, KINDS
from hyperrecon_jax.models.unet import NORMS, PRECISIONS
from hyperrecon_jax.physics import masks
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.dhs import SCORE_KINDS
from hyperrecon_jax.training.gradient import SCOPES

TASKS = ("csmri", "denoising", "super_resolution", "segmentation")
NOISES = ("gaussian", "rician")
SYNTHETIC = ("mni", "broad")
SOURCES = (*SYNTHETIC, "arrays", *FILES)
PLACEMENTS = ("auto", "device", "host", "disk")
SAMPLINGS = ("uniform", "endpoints", "constant", "ensemble")
SCHEDULES = ("constant", "cosine")
NETWORKS = ("unet", "unrolled")
CONDITIONINGS = (*KINDS, "film")
AUTO = ("auto",)

# The settings that name one of several choices.
CHOICES: dict[str, Sequence[str]] = {
    "data.source": SOURCES,
    "data.placement": PLACEMENTS,
    "data.plane": PLANES,
    "task.name": TASKS,
    "task.noise": NOISES,
    "lam.sampling": SAMPLINGS,
    "model.network": NETWORKS,
    "model.norm": NORMS,
    "model.norm_over": SCOPES,
    "model.precision": tuple(PRECISIONS),
    "model.conditioning": CONDITIONINGS,
    "model.encoding": ENCODINGS,
    "dhs.rank_over": SCOPES,
    "train.schedule": SCHEDULES,
}

# The settings that are numbers: the key, whether its value is valid in a config, and what is expected.
Range = tuple[str, Callable[[Any, ConfigDict], bool], str]
SEEDS: list[Range] = [
    (key, lambda value, _: 0 <= value < 2**31, "at least 0 and below 2^31")
    for key in ("seed", "data.seed", "task.mask_seed")
]
COUNTS: list[Range] = [
    (f"train.{name}", lambda value, _: value >= 1, "at least 1")
    for name in ("batch", "log_every", "save_every", "keep", "validation_images")
]
MAX_STEPS = 2**31  # the step is counted in 32 bits
MAX_ITERATIONS = 100  # each is traced and compiled
MAX_SIZE = 4096  # pixels along a side; a mask for more takes minutes and gigabytes
RANGES: list[Range] = [
    *SEEDS,
    ("task.factor", lambda value, _: value >= 1, "at least 1"),
    ("train.steps", lambda value, _: 1 <= value < MAX_STEPS, "at least 1 and below 2^31"),
    *COUNTS,
    ("train.warmup", lambda value, config: 0 <= value < config.train.steps, "at least 0 and below config.train.steps"),
    ("train.microbatch", lambda value, _: value >= 0, "at least 0"),
    ("train.clip", lambda value, _: value >= 0, "at least 0"),
    ("train.learning_rate", lambda value, _: value > 0, "above 0"),
    ("model.iterations", lambda value, _: 1 <= value <= MAX_ITERATIONS, f"at least 1 and at most {MAX_ITERATIONS}"),
    ("model.width", lambda value, _: value >= 1, "at least 1"),
    ("model.hyper_width", lambda value, _: value >= 0, "at least 0"),
    ("model.rank", lambda value, _: value >= 1, "at least 1"),
    (
        "model.norm",
        lambda value, config: value != "none" or config.model.conditioning != "film" or not config.model.hyper_width,
        'batch or instance where config.model.conditioning is "film"',
    ),
    ("lam.endpoint_probability", lambda value, _: 0 <= value <= 1, "in [0, 1]"),
]


def check(config: ConfigDict) -> None:
    """Raise `InputError` for the first setting that no experiment can have."""
    for key, choices in CHOICES.items():
        _require_choice(config, key, choices)
    for key, is_valid, expected in RANGES:
        _require(config, is_valid(_value(config, key), config), key, expected)
    _check_loss(config)
    _check_acquisition(config)
    _check_segmentation(config)
    _check_dhs(config)
    _check_lambda(config)
    _check_data(config)
    if config.data.source == "arrays":
        for split in ("train", "val", "test"):
            expected = 'the path of a .npy file where config.data.source is "arrays"'
            _require(config, config.data[split], f"data.{split}", expected)
    else:
        _check_preparation(config)


def _check_loss(config: ConfigDict) -> None:
    """The loss terms and their scales."""
    terms, scales, ground_truth = config.loss.terms, config.loss.scales, config.loss.ground_truth
    require = functools.partial(_require, config)
    require(len(terms) >= 1, "loss.terms", "at least one term")
    require(all(term in TERMS for term in terms), "loss.terms", f"among {', '.join(TERMS)}")
    require(len(set(terms)) == len(terms), "loss.terms", "terms that differ from one another")
    if scales != AUTO:
        expected = f"one number for each of config.loss.terms {terms!r}, or auto"
        require(len(scales) == len(terms), "loss.scales", expected)
        require(all(_is_number(scale) and scale > 0 for scale in scales), "loss.scales", "numbers above 0, or auto")
    require(config.loss.pilot_steps >= 1, "loss.pilot_steps", "at least 1")
    supervised = [term for term in terms if term in SUPERVISED]
    require(
        ground_truth or not supervised,
        "loss.terms",
        f"free of {', '.join(supervised)}, which compare with the truth, where config.loss.ground_truth is False",
    )
    if scales == AUTO:
        can_calibrate = len(terms) > 1 and all(term in SUPERVISED and term != "soft_dice" for term in terms)
        can_pilot = not ground_truth and "data_consistency" in terms
        require(
            can_calibrate or can_pilot,
            "loss.scales",
            "numbers, unless two terms or more all compare with the truth, or config.loss.ground_truth is False and"
            " data_consistency is among the terms",
        )


def _check_segmentation(config: ConfigDict) -> None:
    """The settings that go with the task "segmentation", and the one term that goes with no other task."""
    require, terms = functools.partial(_require, config), config.loss.terms
    if config.task.name != "segmentation":
        require("soft_dice" not in terms, "loss.terms", 'free of soft_dice unless config.task.name is "segmentation"')
        return
    condition = 'where config.task.name is "segmentation"'
    require(terms == ("soft_dice",), "loss.terms", f'("soft_dice",) {condition}')
    has_labels = config.data.source in ("mni", "abide")
    require(has_labels, "data.source", f'"mni" or "abide", which have labels, {condition}')
    require(config.task.sigma == 0, "task.sigma", f"0 {condition}")
    require(config.model.hyper_width == 0, "model.hyper_width", f"0 {condition}")
    require(config.model.residual is False, "model.residual", f"False {condition}")
    require(config.model.network == "unet", "model.network", f'"unet" {condition}')
    require(config.lam.sampling == "constant", "lam.sampling", f'"constant" {condition}')


def _check_acquisition(config: ConfigDict) -> None:
    """The mask, the acceleration and the noise: a value each, or a range."""
    require, task = functools.partial(_require, config), config.task
    is_range = any(isinstance(value, tuple) for value in (task.mask, task.acceleration, task.sigma))
    kinds = task.mask if isinstance(task.mask, tuple) else (task.mask,)
    are_masks = len(kinds) > 0 and all(isinstance(kind, str) and kind in masks.MASKS for kind in kinds)
    are_kinds = are_masks and len(set(kinds)) == len(kinds)
    require(are_kinds, "task.mask", f"one of {', '.join(masks.MASKS)}{', or several of them' if is_range else ''}")
    for key, low in (("acceleration", 1), ("sigma", 0)):
        value = task[key]
        if isinstance(value, tuple):
            is_valid = len(value) == 2 and all(map(_is_number, value)) and low <= value[0] <= value[1]
            require(is_valid, f"task.{key}", f"a number, or (lowest, highest) of at least {low}")
        else:
            require(_is_number(value) and value >= low, f"task.{key}", f"at least {low}")
    if is_range:
        require(task.name == "csmri", "task.name", '"csmri" where config.task has a range of acquisitions')
        require(not config.data.coils, "data.coils", "0 where config.task has a range of acquisitions")


def _check_dhs(config: ConfigDict) -> None:
    """Data-driven hyperparameter sampling."""
    keep, batch, terms = config.dhs.keep, config.train.batch, config.loss.terms
    require = functools.partial(_require, config)
    _require_choice(config, "dhs.rank", SCORE_KINDS)
    if keep is None:
        return
    require(1 <= keep <= batch, "dhs.keep", f"at least 1 and at most config.train.batch, {batch}")
    has_score = keep == batch or "data_consistency" in terms
    expected = f"config.train.batch, {batch}, without data_consistency in config.loss.terms {terms!r}"
    require(has_score, "dhs.keep", expected)
    is_masked = keep < batch and (config.model.norm == "batch" or config.model.hyper_width == 0)
    require(
        not config.train.microbatch or not is_masked,
        "train.microbatch",
        "0 where DHS masks samples, as it does with batch norm or without a hypernetwork",
    )


def _check_lambda(config: ConfigDict) -> None:
    """The values of lambda, and whether the network has a use for them."""
    sampling, lam, num_terms = config.lam.sampling, config.lam.value, len(config.loss.terms)
    num_lams = num_terms - 1
    require = functools.partial(_require, config)
    if sampling == "constant" or lam:
        numbers = "1 number" if num_lams == 1 else f"{num_lams} numbers"
        is_valid = len(lam) == num_lams and all(map(_is_fraction, lam))
        require(is_valid, "lam.value", f"{numbers} in [0, 1] for {num_terms} terms")
    require(
        config.model.hyper_width > 0 or sampling in ("constant", "ensemble"),
        "model.hyper_width",
        'above 0 unless config.lam.sampling is "constant" or "ensemble" (without a hypernetwork a network has one lambda)',
    )
    axes = config.lam.axes
    if sampling == "ensemble":
        require(config.model.hyper_width == 0, "model.hyper_width", '0 where config.lam.sampling is "ensemble"')
    if sampling == "ensemble" or axes:
        is_grid = len(axes) == num_lams and all(map(_is_axis, axes))
        require(is_grid, "lam.axes", f"{num_lams} tuples of rising numbers in [0, 1]")
    if sampling == "ensemble":
        is_uniform = config.dhs.keep in (None, config.train.batch)
        require(is_uniform, "dhs.keep", 'not set where config.lam.sampling is "ensemble"')
        has_scales = config.loss.ground_truth or config.loss.scales != AUTO
        require(has_scales, "loss.scales", "the numbers in scales.json of the run to compare with")


def _check_data(config: ConfigDict) -> None:
    """Check the source of the data and where they are held."""
    require, source, coils = functools.partial(_require, config), config.data.source, config.data.coils
    require(
        source != "arrays" or config.data.placement != "disk",
        "data.placement",
        '"auto", "device" or "host" where config.data.source is "arrays"',
    )
    require(config.data.workers >= 0, "data.workers", "at least 0")
    for key in ("include", "exclude"):
        require(all(isinstance(pattern, str) for pattern in config.data[key]), f"data.{key}", "a tuple of patterns")
    require(coils >= 0, "data.coils", "at least 0")
    require(
        not coils or source in ("fastmri", "folder"),
        "data.source",
        '"fastmri" or "folder" where config.data.coils is above 0',
    )
    require(not coils or config.task.name == "csmri", "task.name", '"csmri" where config.data.coils is above 0')


def _check_preparation(config: ConfigDict) -> None:
    """The data that are prepared before training: their size and number."""
    require, size, subjects = functools.partial(_require, config), config.data.size, config.data.subjects
    expected = f"a positive multiple of 8 (the U-Net halves it three times), at most {MAX_SIZE}"
    require(8 <= size <= MAX_SIZE and size % 8 == 0, "data.size", expected)
    are_counts = len(subjects) == 3 and all(map(_is_count, subjects))
    require(are_counts, "data.subjects", "three numbers of at least 1")
    require(config.data.slices >= 1, "data.slices", "at least 1")
    num_images = subjects[0] * config.data.slices
    require(config.train.batch <= num_images, "train.batch", f"at most the {num_images} training images")
    if config.data.source in FILES:
        require(config.data.root, "data.root", f'a folder where config.data.source is "{config.data.source}"')


def _require(config: ConfigDict, condition: Any, key: str, expected: str) -> None:
    if not condition:
        raise InputError(f"config.{key} must be {expected}, got {_value(config, key)!r}.")


def _require_choice(config: ConfigDict, key: str, choices: Sequence[str]) -> None:
    _require(config, _value(config, key) in choices, key, f"one of {', '.join(choices)}")


def _value(config: ConfigDict, key: str) -> Any:
    """The value of a key such as "train.steps"."""
    return functools.reduce(operator.getitem, key.split("."), config)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_axis(values: Any) -> bool:
    """Whether `values` are rising values of one lambda."""
    is_inside = isinstance(values, (tuple, list)) and len(values) > 0 and all(map(_is_fraction, values))
    return is_inside and all(a < b for a, b in itertools.pairwise(values))
