"""The settings of an experiment: every key with its default value. The values that are valid are in `config_check.py`.

A file in `configs/` starts from `default_config()`, changes some settings and returns the result. The keys are locked: a
misspelt key is an error, in the file and on the command line.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from hyperrecon_jax.runs.config_check import AUTO, check
from hyperrecon_jax.runtime.errors import InputError

RANGE_KEYS = ("task.mask", "task.acceleration", "task.sigma")  # a value, or a tuple of them
HYPER_WIDTHS = {"S": 4, "M": 32, "L": 128}  # HyperRecon-S, -M, -L (Sec. V-B)


def default_config() -> ConfigDict:
    """Every setting. The values are the paper's where it states them, except for the norms and the hypernetwork's heads."""
    config = ConfigDict()
    config.seed = 0  # seed of the initial weights, the order of the images, the lambdas and the noise
    config.data = _data_defaults()
    config.task = _task_defaults()

    config.loss = ConfigDict()
    config.loss.terms = ("mae", "ssim")  # L_1 ... L_K; with two terms lambda = 0 is the first alone, 1 the second (Eq. 9)
    config.loss.scales = (1.0, 1.0)  # alpha_k (Sec. IV-D); or ("auto",): from networks of single losses, or from a pilot
    config.loss.pilot_steps = 100  # training steps of the pilot (amortized optimization)
    # whether the loss may use the reference image; False: amortized optimization, from measurements (Eq. 6)
    config.loss.ground_truth = True

    config.dhs = ConfigDict()  # data-driven hyperparameter sampling (Sec. IV-C)
    # b: DHS trains on the b samples of a batch with the lowest J; None: on all (UHS)
    config.dhs.keep = config_dict.placeholder(int)
    config.dhs.rank = "absolute"  # rank by J; or "relative": by J / ||y||^2, which does not prefer dark images
    # "device": select the same number on each device; "batch": select from the whole batch
    config.dhs.rank_over = "device"

    config.lam = ConfigDict()
    config.lam.sampling = "uniform"  # (Sec. IV-B); or "endpoints"; "constant"; "ensemble": one U-Net for each lambda
    config.lam.endpoint_probability = 0.2  # "endpoints": how often a lambda is set to 0 or 1
    config.lam.value = ()  # "constant": the K-1 lambdas
    config.lam.axes = ()  # "ensemble": the values of each of the K-1 lambdas, such as ((0.0, 0.5, 1.0),); all combinations

    config.model = _model_defaults()
    config.train = _train_defaults()
    return config.lock()


def _data_defaults() -> ConfigDict:
    data = ConfigDict()
    # "mni": brains made from the MNI template in this package; "broad": synthetic images as varied as people's scans; or
    # "fastmri", "abide", "folder", "arrays"
    data.source = "mni"
    data.placement = "auto"  # where training samples are held: "device", "host" or "disk"; "auto": where there is room
    data.workers = 0  # processes that read samples from the host or the disk; 0: threads of this process
    # all sources but "arrays": prepared once, then kept in the cache
    data.size = 256  # pixels along a side
    data.subjects = (100, 25, 50)  # for training, validation, test (Sec. V-A)
    data.slices = 114  # of each subject; "fastmri", "abide" and "folder": at most
    data.seed = 0  # seed of the population, or of the split by subject
    data.cache = ""  # "": $HYPERRECON_JAX_CACHE or the user's cache folder
    # sources "fastmri", "abide", "folder"
    data.root = ""  # the folder with the files
    data.acquisition = ""  # "fastmri": such as "CORPD_FBK" (PD) or "CORPDFS_FBK" (PDFS); "": all
    data.coils = 0  # "fastmri", "folder": measured k-space of this many (virtual) coils; 0: magnitude images
    data.whiten = False  # make the noise of these coils white and equally strong
    data.plane = "acquired"  # "folder": of slices, "axial", "coronal", "sagittal"; "acquired": that of each scan
    data.include = ()  # "folder": patterns of paths, such as ("*_t1.nii.gz",), of which a file must match one; (): all
    data.exclude = ()  # "folder": patterns of which a file must match none, such as ("*_seg.nii.gz",)
    # source "arrays": paths of .npy files of shape (n, h, w), (n, 1, h, w) or (n, h, w, 1), values in [0, 1]
    data.train = ""
    data.val = ""
    data.test = ""
    return data


def _task_defaults() -> ConfigDict:
    task = ConfigDict(type_safe=False)  # because some settings are a value or a range; config_check checks them
    task.name = "csmri"  # or "denoising", "super_resolution"; "segmentation": of clean images (Sec. V-E.1)
    task.noise = "gaussian"  # added to the measurement; for "csmri" complex and on sampled k-space; or "rician"
    task.sigma = 0.0  # standard deviation of the noise, in units of image intensity
    # csmri. One network can learn many acquisitions: a tuple of masks, and (lowest, highest) for the other two and sigma.
    # Each training sample then has an acquisition of its own, which the hypernetwork sees beside lambda.
    task.mask = "poisson_disc"  # or "poisson_disc_authors", "random_lines", "equispaced_lines"
    task.acceleration = 4.0
    task.mask_seed = 0
    # super_resolution
    task.factor = 4
    return task


def _model_defaults() -> ConfigDict:
    model = ConfigDict()
    model.network = "unet"  # the paper's; or "unrolled": data consistency and a U-Net, several times
    model.iterations = 3  # of an unrolled network
    model.width = 32  # channels of a U-Net
    # divide the input by its own scale and multiply the result by it, so that the result has the units of the measurement;
    # ignored by segmentation
    model.normalize = True
    model.norm = "instance"  # or "batch" (the paper's), "none"
    model.norm_over = "batch"  # batch norm: statistics of the whole batch; or "device": each device has its own
    model.precision = "float32"  # of the computation; or "tf32", "bfloat16"; parameters stay float32
    model.residual = True  # U-Net: add the magnitude of the input to the result
    # d; 0: no hypernetwork; then lam.sampling must be "constant" or "ensemble"
    model.hyper_width = HYPER_WIDTHS["L"]
    # how lambda acts (docs/improvements.md): on all weights, through "low_rank" heads, "dense" heads (the paper's) or as
    # a "mixture" of a few kernels; or on the scales and biases of the norms alone, "film"
    model.conditioning = "low_rank"
    model.rank = 4  # of "low_rank"; for "mixture" the number of kernels that are mixed
    model.encoding = "coefficients"  # how each coefficient enters the hypernetwork; or as a point on a "circle"
    return model


def _train_defaults() -> ConfigDict:
    train = ConfigDict()
    train.init_from = ""  # a run with the same network whose weights training starts from, or "pretrained"
    train.steps = 35_625  # 100 epochs of 11,400 slices
    train.batch = 32
    train.microbatch = 0  # number of samples that a device computes at a time; 0: chosen for the machine
    train.remat = False  # compute activations again in the backward pass instead of keeping them: less memory
    train.learning_rate = 1e-3
    train.schedule = "constant"  # or "cosine", to 0 over all steps
    train.warmup = 0  # steps over which the learning rate rises from 0
    train.clip = 0.0  # upper limit of the gradient's norm; 0: no limit
    train.log_every = 20  # steps
    train.save_every = 1000  # steps between checkpoints, each with a validation
    train.keep = 2  # number of latest checkpoints that stay; the best by validation stays too
    train.validation_images = 64  # at most this many are used, evenly spaced over the split
    return train


def paper_config(variant: str) -> ConfigDict:
    """The settings that the paper's supervised experiments share (Sec. V-A to V-D).

    HyperRecon-S, -M or -L with dense heads, batch norm and uniform lambda. The paper states Adam and batches of 32; the
    learning rate of 1e-3 and the 100 epochs come from the authors' code.

    Args:
        variant: "S", "M" or "L".
    """
    config = default_config()
    config.model.hyper_width = select_variant(variant, HYPER_WIDTHS)
    config.model.conditioning = "dense"
    config.model.norm = "batch"
    config.model.normalize = False
    return config


# A resumed run may change these settings: none of them alters what is computed.
CHANGEABLE_ON_RESUME = (
    "data.cache",
    "data.placement",
    "data.workers",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.remat",
)


def complete(settings: Mapping[str, Any]) -> ConfigDict:
    """The default settings with some replaced, checked.

    Args:
        settings: nested, and only those that differ from their default are needed.

    Raises:
        InputError: for an unknown key, a value of the wrong type, or a value that no experiment can have.
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
    """The settings by which two experiments compute different things, such as "train.batch (16 there, 32 here)"."""
    flat_old, flat_new = (flatten(complete(settings)) for settings in (old, new))
    for flat in (flat_old, flat_new):
        if flat["dhs.keep"] == flat["train.batch"]:
            flat["dhs.keep"] = None  # the whole batch, whether stated or not
    harmless = {*CHANGEABLE_ON_RESUME}
    if flat_new["train.schedule"] != "cosine":
        harmless.add("train.steps")
    if flat_new["model.norm"] != "batch":  # no statistics that depend on it
        harmless |= {"train.microbatch", "model.norm_over"}
    if not flat_new["model.hyper_width"]:  # the network does not depend on lambda
        harmless |= {"model.conditioning", "model.rank", "model.encoding"}
    if flat_new["model.network"] == "unet":
        harmless.add("model.iterations")
    else:
        harmless.add("model.residual")
    return [
        f"{key} ({value!r} there, {flat_new[key]!r} here)"
        for key, value in flat_old.items()
        if key not in harmless and value != flat_new[key]
    ]


def select_variant(variant: str, choices: Mapping[str, Any]) -> Any:
    """The choice that the part of `--config FILE:VARIANT` after the colon names; raises `InputError` for another name."""
    if variant not in choices:
        raise InputError(f"The variant must be one of {', '.join(choices)}; got {variant!r}.")
    return choices[variant]


def check_key(key: str) -> Any:
    """The default of the setting `key`, such as "train.steps"; raises `InputError` if there is no setting of that name."""
    defaults = flatten(default_config())
    if key not in defaults:
        similar = difflib.get_close_matches(key, defaults, n=1, cutoff=0.6)
        raise InputError(f"config.{key} is not a setting{f'; did you mean config.{similar[0]}?' if similar else '.'}")
    return defaults[key]


def _set(config: ConfigDict, key: str, value: Any) -> None:
    """Replace one setting; raises `InputError` for an unknown key or a value of the wrong type."""
    value = _convert(key, value, check_key(key))
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"config.{key} must be finite, got {value}.")
    *group, name = key.split(".")
    section = config[group[0]] if group else config
    expected = section.get_type(name)
    default = section[name]
    is_range = key in RANGE_KEYS and isinstance(value, tuple)
    if type(value) is not expected and not is_range and not (value is None and default is None):
        example = "" if default is None else f", such as {default!r}"
        raise InputError(f"config.{key} must be of type {expected.__name__}{example}, got {value!r}.")
    section[name] = value


def _convert(key: str, value: Any, default: Any) -> Any:
    """A value as JSON or a command line holds it, converted to the type of the default where that loses nothing."""
    if key == "loss.scales" and value == AUTO[0]:
        return AUTO
    if key in RANGE_KEYS:
        return _convert_range(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        if len(value) == 1 and isinstance(value[0], str):  # a command line's `mae,ssim` arrives as one string
            return tuple(value[0].split(","))
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _convert_range(value: Any) -> Any:
    """A value, or a tuple of several; a command line's `2,8` may arrive as one string."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    parts = [part for item in values for part in (item.split(",") if isinstance(item, str) else [item])]
    numbers = tuple(float(part) if isinstance(part, int) and not isinstance(part, bool) else part for part in parts)
    return numbers[0] if len(numbers) == 1 else numbers
