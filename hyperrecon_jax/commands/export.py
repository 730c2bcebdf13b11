"""Write the model of a run to a file for other programs. The suffix of the file names its kind.

.onnx                           a graph for ONNX runtimes (`export.onnx_bytes`); for one lambda
.pt .pth .safetensors .npz      a PyTorch state dict (`interop.to_torch`); for one lambda, or of the whole hyper-U-Net
.npz with the names "ours"      Flax variables of the main network (`export.named`); for one lambda
.jaxexport                      a program for JAX alone (`export.serialized`); of the whole model, or for one lambda
.run                            a folder, the slim run (`slim_run.py`): the whole model, for all commands of this package

An unrolled network has the last two kinds only. A run of a range of acquisitions is written for the middle of the range, or
for another acquisition; a slim run has the whole range.
"""

import importlib.util
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from hyperrecon_jax.models import export, interop, tensor_files
from hyperrecon_jax.models.model import Model
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics.acquisition import Acquisition, describe_excess, nearest_trained
from hyperrecon_jax.runs import run_folder, slim_run
from hyperrecon_jax.runs.acquisitions import parse_acquisition
from hyperrecon_jax.runs.experiment import reported_lams
from hyperrecon_jax.runs.labels import lam_label
from hyperrecon_jax.runs.load import image_shape, load, read_config, steps_done
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runs.task import acquisition_range
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.files import atomic_write

Tree = Any
ONNX, PROGRAM, SLIM = ".onnx", ".jaxexport", ".run"
SUFFIXES = (ONNX, PROGRAM, SLIM, *tensor_files.SUFFIXES)
PACKAGES = {
    ONNX: "onnx",
    PROGRAM: "flatbuffers",
    ".safetensors": "safetensors",
    **dict.fromkeys((".pt", ".pth", ".tar"), "torch"),
}
NAMES = ("torch", "ours")


def export_run(
    run: Path,
    out: Path,
    *,
    lam: ArrayLike | None = None,
    names: str = "torch",
    acquisition: str | None = None,
    say: Say = print,
) -> None:
    """Write the model of a run to a file and say how to load it.

    Args:
        run: folder of the run.
        out: the file, with a suffix of `SUFFIXES`.
        lam: the K-1 lambdas of the U-Net to write; None: the whole model.
        names: the naming of the tensors in a file, one of `NAMES`.
        acquisition: for which a network of a range of acquisitions is written, as in `parse_acquisition`; None: for the
            middle of the range. One outside of the range is said to be so, and the nearest inside is taken.
        say: takes lines for the user.

    Raises:
        InputError: if the run, the file's kind, the lambda, the acquisition and the names do not fit, or a package is
            missing; before anything is written.
    """
    _check_out(out, names)
    run = slim_run.find_run(run)
    config = read_config(run)
    chosen = None if acquisition is None else _choose_acquisition(run, config, acquisition, out)
    model, variables = load(run, acquisition=chosen)
    if out.suffix == SLIM:
        if lam is not None:
            raise InputError(f"`lam` must be left out: {out} is to hold the whole model.")
        _write_slim_run(run, out, config, variables, say)
        return
    _check_network(run, config, model, out, names)
    reported = lam_label(reported_lams(config)[0])
    is_plain = _is_plain(model)
    if lam is not None and is_plain:
        raise InputError(f"`lam` must be left out: {run} holds one U-Net, of lambda = {reported}.")
    needs_lam = out.suffix == ONNX or names == "ours" or (model.members and out.suffix != PROGRAM)
    if lam is None and not is_plain and needs_lam:
        raise InputError(f"`lam` must name the lambda of the U-Net that is written from {run} to {out}.")
    has_condition = "condition" in variables
    if lam is not None:
        model, variables = export.plain(model, variables, lam)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(run, out, model, variables, names, config.data.coils)
    except OSError as error:
        raise InputError(f"`out` must be a file that can be written, got {out}: {error.strerror}.") from error
    content = _describe_content(model, lam, reported)
    ranges = acquisition_range(config)
    if ranges and has_condition:
        content += " for acceleration {:.3g}, noise {:.3g} and the mask {}".format(
            *nearest_trained(ranges, chosen or ranges.middle)
        )
        for sentence in describe_excess(ranges, chosen) if chosen else []:
            say(f"Outside of the training: {sentence} The file is for the nearest that was trained.")
    say(f"{out} holds {content}, {out.stat().st_size / 1e6:.3g} MB. To load it:")
    if names == "torch" and out.suffix in tensor_files.SUFFIXES and model.main.normalize:
        say("    # divide the input by the 99th percentile of its magnitude, multiply the result by it (docs/interop.md)")
    say(f"    {_loading_line(out, model, names, config.data.coils)}")


def _write_slim_run(run: Path, out: Path, config: ConfigDict, variables: Tree, say: Say) -> None:
    """Write a slim run; of a slim run, with the images that lie in its folder."""
    images = slim_run.own_images(run, run_folder.read_settings(run)["data"]) if slim_run.is_slim(run) else {}
    slim_run.write(out, config.to_dict(), variables, steps=steps_done(run), images=images)
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"{out} holds the whole model, {size / 1e6:.3g} MB. Every command takes it: --run {shlex.quote(str(out))}")


def _describe_content(model: Model, lam: ArrayLike | None, reported: str) -> str:
    """What a file holds: the whole model, or one network of a lambda."""
    if not _is_plain(model):
        return "the whole model"
    network = "U-Net" if isinstance(model.main, UNet) else "network"
    return f"the {network} of lambda = {reported if lam is None else lam_label(np.asarray(lam))}"


def _check_out(out: Path, names: str) -> None:
    """Raise `InputError` if no such file can be written, before the run is loaded."""
    suffix = out.suffix
    if suffix not in SUFFIXES:
        raise InputError(f"`out` must end with one of {', '.join(SUFFIXES)}, got {out}.")
    if names not in NAMES:
        raise InputError(f"`names` must be one of {', '.join(NAMES)}, got {names!r}.")
    if names == "ours" and suffix != ".npz":
        raise InputError(f'`names` "ours" goes with a .npz file, got {out}.')
    if suffix in PACKAGES and importlib.util.find_spec(PACKAGES[suffix]) is None:
        package = PACKAGES[suffix]
        command = f"pip install {'torch' if package == 'torch' else 'hyperrecon_jax[export]'}"
        raise InputError(f"`out` of the kind {suffix} needs the package {package}, which is not installed: {command}")
    if out.is_dir() and suffix != SLIM:
        raise InputError(f"`out` must be a file, got the folder {out}.")
    if suffix == SLIM:
        slim_run.check_new(out)
        return
    paths.check_file(out, argument="`out`")
    if (out.parent / run_folder.CONFIG).is_file():
        raise InputError(f"`out` must lie outside of the folder of a run, got {out}.")


def _choose_acquisition(run: Path, config: ConfigDict, text: str, out: Path) -> Acquisition:
    """The acquisition that the text names; raises `InputError` if the network in the file cannot be for one."""
    acquisition = parse_acquisition(text, config)
    if acquisition_range(config) is None or not config.model.hyper_width:
        raise InputError(f"`acquisition` must be left out: the network of {run} is the same for every acquisition.")
    if out.suffix == SLIM:
        raise InputError(f"`acquisition` must be left out: {out} is to hold the whole range.")
    return acquisition


def _check_network(run: Path, config: ConfigDict, model: Model, out: Path, names: str) -> None:
    """Raise `InputError` if the file cannot hold an unrolled network, or no program can have its measurement."""
    if not isinstance(model.main, Unrolled):
        return
    if out.suffix != PROGRAM and names != "ours":
        raise InputError(
            f'`out` must end with {PROGRAM}, or with .npz and the names "ours", because {run} holds an unrolled network,'
            f" whose data consistency is part of no state dict and of no ONNX graph; got {out}."
        )
    if out.suffix == PROGRAM and config.task.name != "csmri":
        raise InputError(
            f'`out` must be a .npz with the names "ours" for an unrolled network of {config.task.name}, got {out}.'
        )


def _is_plain(model: Model) -> bool:
    """Whether a model is one network that does not depend on lambda."""
    return not model.hyper and not model.members


def _write(run: Path, out: Path, model: Model, variables: Tree, names: str, coils: int) -> None:
    """Write a model in the format that the suffix names."""
    if out.suffix in (ONNX, PROGRAM):
        to_bytes = export.onnx_bytes if out.suffix == ONNX else partial(export.serialized, coils=coils)
        content = to_bytes(model, variables, shape=image_shape(run))
        with atomic_write(out) as file:
            file.write_bytes(content)
    elif names == "ours":
        tensor_files.write(out, export.named(variables))
    else:
        tensor_files.write(out, interop.to_torch(model, variables, batches=steps_done(run)))


def _loading_line(out: Path, model: Model, names: str, coils: int) -> str:
    """A line of Python that loads the file."""
    file = str(out)
    if out.suffix == ONNX:
        return f'x_hat = onnxruntime.InferenceSession({file!r}).run(None, {{"y": y}})[0]'
    if out.suffix == PROGRAM:
        arguments = "y"
        if isinstance(model.main, Unrolled):
            arguments = "kspace, maps" if coils else "kspace"
        arguments += "" if _is_plain(model) else ", lam"
        return f"x_hat = jax.export.deserialize(open({file!r}, 'rb').read()).call({arguments})"
    if names == "ours":
        main = model.main
        options = f"norm={main.norm!r}, normalize={main.normalize}"
        if isinstance(main, Unrolled):
            network = f"Unrolled({main.width}, {main.iterations}, {options})"
        else:
            network = f"UNet({main.width}, {main.out_channels}, residual={main.residual}, {options})"
        return f"x_hat = {network}.apply(flax.traverse_util.unflatten_dict(dict(numpy.load({file!r})), sep='/'), y)"
    if out.suffix == ".npz":
        return f"network.load_state_dict({{k: torch.from_numpy(a) for k, a in numpy.load({file!r}).items()}})"
    if out.suffix == ".safetensors":
        return f"network.load_state_dict(safetensors.torch.load_file({file!r}))"
    return f"network.load_state_dict(torch.load({file!r}))"
