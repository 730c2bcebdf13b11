"""The settings of an experiment: every key with its default. What they may be is in `config_check.py`.

A file in `configs/` starts from `default_config()`, changes what it is about, and returns the whole. Its keys are locked:
a misspelt one is an error in the file and on the command line alike.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from hyperrecon_jax.runs.config_check import AUTO, check
from hyperrecon_jax.runtime.errors import InputError

HYPER_WIDTHS = {"S": 4, "M": 32, "L": 128}  # HyperRecon-S, -M, -L (Sec. V-B)


def default_config() -> ConfigDict:
    """Every setting, with the paper's value where it gives one, but for norms and the heads of the hypernetwork."""
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
    config.dhs.rank_over = "device"  # each device keeps as many of its own samples; or "batch": the best of all, wherever

    config.lam = ConfigDict()
    config.lam.sampling = "uniform"  # (Sec. IV-B); or "endpoints", "constant", "ensemble": a U-Net of its own at each
    config.lam.endpoint_probability = 0.2  # "endpoints": how often a lambda is set to 0 or 1
    config.lam.value = ()  # "constant": the K-1 lambdas
    config.lam.axes = ()  # "ensemble": values of each of the K-1 lambdas, such as ((0.0, 0.5, 1.0),); of all combinations

    config.model = ConfigDict()
    config.model.width = 32  # channels of the U-Net
    config.model.norm = "instance"  # or "batch" (the paper's), "none"
    config.model.norm_over = "batch"  # batch norm's statistics: of the whole batch; or "device": each device has its own
    config.model.precision = "float32"  # of what is computed; or "tf32", "bfloat16"; parameters stay float32
    config.model.residual = True  # add the magnitude of the input to the result
    config.model.hyper_width = HYPER_WIDTHS["L"]  # d; 0: no hypernetwork, plain U-Nets: "constant" or "ensemble"
    # how lambda acts (docs/improvements.md): on all weights, by "low_rank" heads, by "dense" ones (the paper's) or as
    # a "mixture" of a few kernels; or on the scales and biases of the norms alone, "film"
    config.model.conditioning = "low_rank"
    config.model.rank = 4  # of "low_rank", of "mixture" the number of kernels that are mixed
    config.model.encoding = "coefficients"  # how each enters the hypernetwork; or as a point on a "circle"

    config.train = ConfigDict()
    config.train.steps = 35_625  # 100 epochs of 11,400 slices
    config.train.batch = 32
    config.train.microbatch = 0  # samples that a device puts through the network at a time; 0: what suits the machine
    config.train.remat = False  # compute activations again in the backward pass instead of keeping them: less memory
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
    """What the paper's supervised experiments share (Sec. V-A to V-D): HyperRecon-S, -M or -L with dense heads, batch norm,
    uniform lambda.

    Adam in batches of 32 is the paper's; the rate of 1e-3 and the 100 epochs are the authors' code's.
    """
    config = default_config()
    config.model.hyper_width = choose(variant, HYPER_WIDTHS)
    config.model.conditioning = "dense"
    config.model.norm = "batch"
    return config


# What a run may change when it goes on: nothing here alters what is computed.
FREE = (
    "data.cache",
    "data.placement",
    "data.workers",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.remat",
)


def complete(settings: Mapping[str, Any]) -> ConfigDict:
    """Defaults, replaced by the settings given, checked.

    Raises:
        InputError: for an unknown key, a value of the wrong type, or one that no experiment can have.
    """
    config = default_config()
    for key, value in flatten(settings).items():
        _set(config, key, value)
    check(config)
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
    free = {*FREE}
    if b["train.schedule"] != "cosine":
        free.add("train.steps")
    if b["model.norm"] != "batch":  # no statistics that depend on it
        free |= {"train.microbatch", "model.norm_over"}
    if not b["model.hyper_width"]:  # no lambda to act
        free |= {"model.conditioning", "model.rank", "model.encoding"}
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
