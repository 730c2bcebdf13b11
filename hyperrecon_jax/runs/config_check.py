"""What settings an experiment can have, as far as that needs no data."""

import functools
import itertools
import math
import operator
from typing import Any

from ml_collections import ConfigDict

from hyperrecon_jax.data.subjects import SOURCES as FILES
from hyperrecon_jax.losses.objective import SUPERVISED, TERMS
from hyperrecon_jax.models.hypernet import ENCODINGS, KINDS
from hyperrecon_jax.models.unet import NORMS, PRECISIONS
from hyperrecon_jax.physics import masks
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.dhs import RANKS
from hyperrecon_jax.training.gradient import SCOPES

TASKS = ("csmri", "denoising", "super_resolution", "segmentation")
NOISES = ("gaussian", "rician")
SOURCES = ("mni", "arrays", *FILES)
PLACEMENTS = ("auto", "device", "host", "disk")
SAMPLINGS = ("uniform", "endpoints", "constant", "ensemble")
SCHEDULES = ("constant", "cosine")
CONDITIONINGS = (*KINDS, "film")
AUTO = ("auto",)


def check(config: ConfigDict) -> None:
    """Raises `InputError` for the first setting that no experiment can have."""

    def value_of(key):
        return functools.reduce(operator.getitem, key.split("."), config)

    def need(condition, key, expected):
        if not condition:
            raise InputError(f"config.{key} must be {expected}, got {value_of(key)!r}.")

    def one_of(key, choices):
        need(value_of(key) in choices, key, f"one of {', '.join(choices)}")

    one_of("data.source", SOURCES)
    one_of("data.placement", PLACEMENTS)
    one_of("task.name", TASKS)
    one_of("task.noise", NOISES)
    one_of("task.mask", tuple(masks.MASKS))
    one_of("lam.sampling", SAMPLINGS)
    one_of("model.norm", NORMS)
    one_of("model.norm_over", SCOPES)
    one_of("model.precision", tuple(PRECISIONS))
    one_of("model.conditioning", CONDITIONINGS)
    one_of("model.encoding", ENCODINGS)
    one_of("dhs.rank_over", SCOPES)
    one_of("train.schedule", SCHEDULES)
    for key, value in (("seed", config.seed), ("data.seed", config.data.seed), ("task.mask_seed", config.task.mask_seed)):
        need(0 <= value < 2**31, key, "at least 0 and below 2^31")
    need(config.task.sigma >= 0, "task.sigma", "at least 0")
    need(config.task.factor >= 1, "task.factor", "at least 1")
    for key in ("steps", "batch", "log_every", "save_every", "keep", "validation_images"):
        need(config.train[key] >= 1, f"train.{key}", "at least 1")
    need(0 <= config.train.warmup < config.train.steps, "train.warmup", "at least 0 and below config.train.steps")
    need(config.train.microbatch >= 0, "train.microbatch", "at least 0")
    need(config.train.clip >= 0, "train.clip", "at least 0")
    need(config.train.learning_rate > 0, "train.learning_rate", "above 0")
    need(config.model.width >= 1, "model.width", "at least 1")
    need(config.model.hyper_width >= 0, "model.hyper_width", "at least 0")
    need(config.model.rank >= 1, "model.rank", "at least 1")
    if config.model.conditioning == "film" and config.model.hyper_width:
        need(config.model.norm != "none", "model.norm", 'batch or instance where config.model.conditioning is "film"')
    need(0 <= config.lam.endpoint_probability <= 1, "lam.endpoint_probability", "in [0, 1]")

    terms, scales = config.loss.terms, config.loss.scales
    need(len(terms) >= 1, "loss.terms", "at least one term")
    unknown = [term for term in terms if term not in TERMS]
    need(not unknown, "loss.terms", f"among {', '.join(TERMS)}")
    need(len(set(terms)) == len(terms), "loss.terms", "terms of which none comes twice")
    if scales != AUTO:
        need(len(scales) == len(terms), "loss.scales", f"one number for each of config.loss.terms {terms!r}, or auto")
        need(all(_number(s) and s > 0 for s in scales), "loss.scales", "numbers above 0, or auto")
    need(config.loss.pilot_steps >= 1, "loss.pilot_steps", "at least 1")
    if not config.loss.ground_truth:
        seeing = [term for term in terms if term in SUPERVISED]
        need(
            not seeing,
            "loss.terms",
            f"free of {', '.join(seeing)}, which compare with the truth, where config.loss.ground_truth is False",
        )
    if scales == AUTO:
        compared = all(term in SUPERVISED and term != "soft_dice" for term in terms) and len(terms) > 1
        piloted = not config.loss.ground_truth and "data_consistency" in terms
        need(
            compared or piloted,
            "loss.scales",
            "numbers, unless all of two terms or more compare with the truth, or config.loss.ground_truth is False and"
            " data_consistency among the terms",
        )
    if config.task.name == "segmentation":
        where = 'where config.task.name is "segmentation"'
        need(terms == ("soft_dice",), "loss.terms", f'("soft_dice",) {where}')
        need(config.data.source in ("mni", "abide"), "data.source", f'"mni" or "abide", which have labels, {where}')
        need(config.task.sigma == 0, "task.sigma", f"0 {where}")
        need(config.model.hyper_width == 0, "model.hyper_width", f"0 {where}")
        need(config.model.residual is False, "model.residual", f"False {where}")
        need(config.lam.sampling == "constant", "lam.sampling", f'"constant" {where}')
    else:
        need("soft_dice" not in terms, "loss.terms", 'free of soft_dice unless config.task.name is "segmentation"')
    keep, batch = config.dhs.keep, config.train.batch
    one_of("dhs.rank", RANKS)
    if keep is not None:
        need(1 <= keep <= batch, "dhs.keep", f"at least 1 and at most config.train.batch, {batch}")
        ranks = keep == batch or "data_consistency" in terms
        need(ranks, "dhs.keep", f"config.train.batch, {batch}, without data_consistency in config.loss.terms {terms!r}")
        masked = config.model.norm == "batch" or config.model.hyper_width == 0
        need(
            not config.train.microbatch or keep == batch or not masked,
            "train.microbatch",
            "0 where DHS masks samples, as it does with batch norm or without a hypernetwork",
        )
    value, count = config.lam.value, len(terms) - 1
    if config.lam.sampling == "constant" or value:
        inside = all(_number(v) and 0 <= v <= 1 for v in value)
        numbers = "1 number" if count == 1 else f"{count} numbers"
        need(len(value) == count and inside, "lam.value", f"{numbers} in [0, 1] for {len(terms)} terms")
    plain = config.lam.sampling in ("constant", "ensemble")
    need(
        config.model.hyper_width > 0 or plain,
        "model.hyper_width",
        'above 0 unless config.lam.sampling is "constant" or "ensemble" (a network without lambda has one lambda)',
    )
    if config.lam.sampling == "ensemble":
        axes = config.lam.axes
        need(config.model.hyper_width == 0, "model.hyper_width", '0 where config.lam.sampling is "ensemble"')
        need(len(axes) == count and all(map(_axis, axes)), "lam.axes", f"{count} tuples of rising numbers in [0, 1]")
        need(keep in (None, batch), "dhs.keep", 'not set where config.lam.sampling is "ensemble"')
        need(
            config.loss.ground_truth or scales != AUTO,
            "loss.scales",
            "the numbers in scales.json of the run to compare with",
        )
    if config.data.source == "arrays":
        need(
            config.data.placement != "disk",
            "data.placement",
            '"auto", "device" or "host" where config.data.source is "arrays"',
        )
    need(config.data.workers >= 0, "data.workers", "at least 0")
    need(config.data.coils >= 0, "data.coils", "at least 0")
    if config.data.coils:
        need(config.data.source == "fastmri", "data.source", '"fastmri" where config.data.coils is above 0')
        need(config.task.name == "csmri", "task.name", '"csmri" where config.data.coils is above 0')
    if config.data.source != "arrays":
        size, subjects = config.data.size, config.data.subjects
        need(size >= 8 and size % 8 == 0, "data.size", "a positive multiple of 8 (the U-Net halves it three times)")
        need(len(subjects) == 3 and all(map(_counts, subjects)), "data.subjects", "three numbers of at least 1")
        need(config.data.slices >= 1, "data.slices", "at least 1")
        count = subjects[0] * config.data.slices
        need(config.train.batch <= count, "train.batch", f"at most the {count} training images")
        if config.data.source in FILES:
            need(config.data.root, "data.root", f'a folder where config.data.source is "{config.data.source}"')
    else:
        for split in ("train", "val", "test"):
            need(config.data[split], f"data.{split}", 'the path of a .npy file where config.data.source is "arrays"')


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _axis(values: Any) -> bool:
    """Whether these are the rising values of one lambda."""
    inside = isinstance(values, (tuple, list)) and len(values) > 0 and all(_number(v) and 0 <= v <= 1 for v in values)
    return inside and all(a < b for a, b in itertools.pairwise(values))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
