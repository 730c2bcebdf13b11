"""The settings of an experiment: every key with its default, and the checks that need no data.

A file in `configs/` starts from `default_config()`, changes what it is about, and returns the whole. Its keys are locked:
a misspelt one is an error in the file and on the command line alike.
"""

import difflib
import itertools
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from hyperrecon_jax import masks
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.objective import RANKS, SUPERVISED, TERMS
from hyperrecon_jax.unet import NORMS

HYPER_WIDTHS = {"S": 4, "M": 32, "L": 128}  # HyperRecon-S, -M, -L (Sec. V-B)
TASKS = ("csmri", "denoising", "super_resolution", "segmentation")
NOISES = ("gaussian", "rician")
FILES = ("fastmri", "abide", "folder")  # sources that prepare files of yours
SOURCES = ("mni", "arrays", *FILES)
PLACEMENTS = ("auto", "device", "host", "disk")
SAMPLINGS = ("uniform", "endpoints", "constant", "ensemble")
SCHEDULES = ("constant", "cosine")
AUTO = ("auto",)


def default_config() -> ConfigDict:
    """Every setting, with the paper's value where it gives one."""
    config = ConfigDict()
    config.seed = 0  # of the initial weights, the order, the lambdas and the noise

    config.data = ConfigDict()
    config.data.source = "mni"  # brains made from the carried template; or "fastmri", "abide", "folder", "arrays": yours
    config.data.placement = "auto"  # training samples live on the "device", the "host", the "disk"; "auto": where they fit
    config.data.workers = 0  # processes that read samples from the host or the disk; 0: threads of this one
    # all sources but "arrays": prepared once, and kept in the cache
    config.data.size = 256  # pixels along a side
    config.data.subjects = (100, 25, 50)  # for training, validation, test (Sec. V-A)
    config.data.slices = 114  # a subject; of "fastmri", "abide" and "folder" at most
    config.data.seed = 0  # of the population, or of the split by subject
    config.data.cache = ""  # "": $HYPERRECON_JAX_CACHE or the user's cache folder
    # sources "fastmri", "abide", "folder"
    config.data.root = ""  # the folder with the files
    config.data.acquisition = ""  # of "fastmri", such as "CORPD_FBK" (PD) or "CORPDFS_FBK" (PDFS); "": all
    config.data.coils = 0  # of "fastmri": measured k-space of so many (virtual) coils; 0: magnitude images
    config.data.whiten = False  # make the noise of these coils white and of one strength
    # source "arrays": paths of .npy files of shape (n, h, w), (n, 1, h, w) or (n, h, w, 1), values in [0, 1]
    config.data.train = ""
    config.data.val = ""
    config.data.test = ""

    config.task = ConfigDict()
    config.task.name = "csmri"  # "csmri", "denoising", "super_resolution"; "segmentation": of clean images (Sec. V-E.1)
    config.task.noise = "gaussian"  # added to the measurement; for "csmri" complex and on sampled k-space; or "rician"
    config.task.sigma = 0.0  # its standard deviation, in units of image intensity
    # csmri
    config.task.mask = "poisson_disc"  # or "poisson_disc_authors", "random_lines", "equispaced_lines"
    config.task.acceleration = 4.0
    config.task.mask_seed = 0
    # super_resolution
    config.task.factor = 4

    config.loss = ConfigDict()
    config.loss.terms = ("mae", "ssim")  # L_1 ... L_K; two terms: lambda = 0 is the first alone, 1 the second (Eq. 9)
    config.loss.scales = (1.0, 1.0)  # alpha_k (Sec. IV-D); or ("auto",): from networks of single losses, or a pilot
    config.loss.pilot_steps = 100  # how long the pilot of amortized optimization trains
    config.loss.ground_truth = True  # may the terms see it; False: amortized optimization, from measurements alone (Eq. 6)

    config.dhs = ConfigDict()  # data-driven hyperparameter sampling (Sec. IV-C)
    config.dhs.keep = config_dict.placeholder(
        int
    )  # b: the samples of a batch that train, those of lowest J; none given: all
    config.dhs.rank = "absolute"  # by J; or "relative": by J / ||y||^2, which does not prefer dark images

    config.lam = ConfigDict()
    config.lam.sampling = "uniform"  # (Sec. IV-B); or "endpoints", "constant", "ensemble": a U-Net of its own at each
    config.lam.endpoint_probability = 0.2  # "endpoints": how often a lambda is set to 0 or 1
    config.lam.value = ()  # "constant": the K-1 lambdas
    config.lam.axes = ()  # "ensemble": values of each of the K-1 lambdas, such as ((0.0, 0.5, 1.0),); of all combinations

    config.model = ConfigDict()
    config.model.width = 32  # channels of the U-Net
    config.model.norm = "instance"  # or "batch" (the paper's), "none"
    config.model.residual = True  # add the magnitude of the input to the result
    config.model.hyper_width = HYPER_WIDTHS["L"]  # d; 0: no hypernetwork, plain U-Nets: "constant" or "ensemble"

    config.train = ConfigDict()
    config.train.steps = 35_625  # 100 epochs of 11,400 slices
    config.train.batch = 32
    config.train.learning_rate = 1e-3
    config.train.schedule = "constant"  # or "cosine", to 0 over all steps
    config.train.warmup = 0  # steps over which the learning rate rises from 0
    config.train.clip = 0.0  # bound on the gradient's norm; 0: none
    config.train.log_every = 20  # steps
    config.train.save_every = 1000  # steps between checkpoints, each with a validation
    config.train.keep = 2  # how many of the latest checkpoints stay; the best by validation stays too
    config.train.validation_images = 64  # at most so many of them are used, spread over the split
    return config.lock()


def paper_config(variant: str) -> ConfigDict:
    """What the paper's supervised experiments share (Sec. V-A to V-D): HyperRecon-S, -M or -L, batch norm, uniform lambda.

    Adam in batches of 32 is the paper's; the rate of 1e-3 and the 100 epochs are the authors' code's.
    """
    config = default_config()
    config.model.hyper_width = choose(variant, HYPER_WIDTHS)
    config.model.norm = "batch"
    return config


# What a run may change when it goes on: nothing here alters what is computed.
FREE = ("data.cache", "data.placement", "data.workers", "train.log_every", "train.save_every", "train.keep")


def complete(settings: Mapping[str, Any]) -> ConfigDict:
    """Defaults, replaced by the settings given, checked.

    Raises:
        InputError: for an unknown key, a value of the wrong type, or one that no experiment can have.
    """
    config = default_config()
    for key, value in flatten(settings).items():
        _set(config, key, value)
    _check(config)
    return config


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> `{"train.steps": ...}`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, (Mapping, ConfigDict)):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two experiments differ in what they compute, as sentences' parts: "train.batch (16 there, 32 here)"."""
    a, b = (flatten(complete(settings)) for settings in (old, new))
    for flat in (a, b):
        if flat["dhs.keep"] == flat["train.batch"]:
            flat["dhs.keep"] = None  # all of them, given or not
    free = {*FREE, "train.steps"} if b["train.schedule"] != "cosine" else {*FREE}
    return [f"{key} ({a[key]!r} there, {b[key]!r} here)" for key in a if key not in free and a[key] != b[key]]


def choose(variant: str, choices: Mapping[str, Any]) -> Any:
    """The choice named by the part of `--config FILE:VARIANT` after the colon."""
    if variant not in choices:
        raise InputError(f"The variant must be one of {', '.join(choices)}; got {variant!r}.")
    return choices[variant]


def check_key(key: str) -> Any:
    """The default of the setting `key`, such as "train.steps"; raises `InputError` if there is none of that name."""
    known = flatten(default_config())
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        raise InputError(f"config.{key} is not a setting{f'; did you mean config.{near[0]}?' if near else '.'}")
    return known[key]


def _set(config: ConfigDict, key: str, value: Any) -> None:
    default = check_key(key)
    if key == "loss.scales" and value == AUTO[0]:
        value = AUTO
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        value = tuple(value)
        value = tuple(tuple(v) if isinstance(v, list) else v for v in value)  # as JSON has them
        if len(value) == 1 and isinstance(value[0], str):  # a command line's `mae,ssim` arrives as one
            value = tuple(value[0].split(","))
    elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"config.{key} must be finite, got {value}.")
    *group, name = key.split(".")
    there = config[group[0]] if group else config
    wanted = there.get_type(name)
    if type(value) is not wanted and not (value is None and default is None):
        example = "" if default is None else f", such as {default!r}"
        raise InputError(f"config.{key} must be of type {wanted.__name__}{example}, got {value!r}.")
    there[name] = value


def _check(config: ConfigDict) -> None:
    def need(condition, key, expected):
        value = flatten(config)[key]
        if not condition:
            raise InputError(f"config.{key} must be {expected}, got {value!r}.")

    def one_of(key, choices):
        need(flatten(config)[key] in choices, key, f"one of {', '.join(choices)}")

    one_of("data.source", SOURCES)
    one_of("data.placement", PLACEMENTS)
    one_of("task.name", TASKS)
    one_of("task.noise", NOISES)
    one_of("task.mask", tuple(masks.MASKS))
    one_of("lam.sampling", SAMPLINGS)
    one_of("model.norm", NORMS)
    one_of("train.schedule", SCHEDULES)
    for key, value in (("seed", config.seed), ("data.seed", config.data.seed), ("task.mask_seed", config.task.mask_seed)):
        need(0 <= value < 2**31, key, "at least 0 and below 2^31")
    need(config.task.sigma >= 0, "task.sigma", "at least 0")
    need(config.task.factor >= 1, "task.factor", "at least 1")
    for key in ("steps", "batch", "log_every", "save_every", "keep", "validation_images"):
        need(config.train[key] >= 1, f"train.{key}", "at least 1")
    need(0 <= config.train.warmup < config.train.steps, "train.warmup", "at least 0 and below config.train.steps")
    need(config.train.clip >= 0, "train.clip", "at least 0")
    need(config.train.learning_rate > 0, "train.learning_rate", "above 0")
    need(config.model.width >= 1, "model.width", "at least 1")
    need(config.model.hyper_width >= 0, "model.hyper_width", "at least 0")
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
