"""What a run has learned, as a file for other programs; the suffix says of which kind.

.onnx                           a graph for ONNX runtimes (`export.onnx_bytes`); of one lambda
.pt .pth .safetensors .npz      a PyTorch state dict (`interop.to_torch`); of one lambda, or of the whole hyper-U-Net
.npz with names of "ours"       Flax variables of a U-Net (`export.named`); of one lambda
.jaxexport                      a program for JAX alone (`export.serialized`); of the whole, or of one lambda
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from hyperrecon_jax.models import export, interop, tensor_files
from hyperrecon_jax.models.model import Model
from hyperrecon_jax.runs import report
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import reported_lams, settings
from hyperrecon_jax.runs.load import image_shape, load, steps_done
from hyperrecon_jax.runs.names import lam_name
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.files import atomic_write

ONNX, PROGRAM = ".onnx", ".jaxexport"
SUFFIXES = (ONNX, PROGRAM, *tensor_files.SUFFIXES)
NEEDS = {
    ONNX: "onnx",
    PROGRAM: "flatbuffers",
    ".safetensors": "safetensors",
    **dict.fromkeys((".pt", ".pth", ".tar"), "torch"),
}
NAMES = ("torch", "ours")


def export_run(
    run: Path, out: Path, *, lam: ArrayLike | None = None, names: str = "torch", say: report.Say = print
) -> None:
    """Write what a run has learned to a file and say how to load it.

    Args:
        run: folder of the run.
        out: the file, with a suffix of `SUFFIXES`.
        lam: the K-1 lambdas of the U-Net to write; None: the whole model.
        names: of the tensors in a file of them, of `NAMES`.
        say: receives lines for the user.

    Raises:
        InputError: if the run, the file's kind, the lambda and the names do not fit, or a package is missing.
    """
    suffix = out.suffix
    if suffix not in SUFFIXES:
        raise InputError(f"`out` must end with one of {', '.join(SUFFIXES)}, got {out}.")
    if names not in NAMES:
        raise InputError(f"`names` must be one of {', '.join(NAMES)}, got {names!r}.")
    if names == "ours" and suffix != ".npz":
        raise InputError(f'`names` "ours" goes with a .npz file, got {out}.')
    if suffix in NEEDS and importlib.util.find_spec(NEEDS[suffix]) is None:
        raise InputError(f"`out` of the kind {suffix} takes the package {NEEDS[suffix]}, which is not installed.")
    if out.is_dir():
        raise InputError(f"`out` must be a file, got the folder {out}.")

    model, variables = load(run)
    lams = reported_lams(complete(settings(run)))
    of_one = not model.hyper and not model.members
    if lam is not None and of_one:
        raise InputError(f"`lam` must be left out: {run} holds one U-Net, of lambda = {lam_name(lams[0])}.")
    if lam is None and not of_one and (suffix == ONNX or names == "ours" or (model.members and suffix != PROGRAM)):
        raise InputError(f"`lam` must say of which lambda the U-Net is that goes from {run} into {out}.")
    if lam is not None:
        model, variables = export.plain(model, variables, lam)

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if suffix in (ONNX, PROGRAM):
            exported = export.onnx_bytes if suffix == ONNX else export.serialized
            content = exported(model, variables, shape=image_shape(run))
            with atomic_write(out) as partial:
                partial.write_bytes(content)
        elif names == "ours":
            tensor_files.write(out, export.named(variables))
        else:
            tensor_files.write(out, interop.to_torch(model, variables, batches=steps_done(run)))
    except OSError as error:
        raise InputError(f"`out` must be a file that can be written, got {out}: {error.strerror}.") from error
    what = "the whole model"
    if not model.hyper and not model.members:
        what = f"the U-Net of lambda = {lam_name(lams[0] if lam is None else np.asarray(lam))}"
    say(f"{out} holds {what}, {out.stat().st_size / 1e6:.3g} MB. To load it:")
    say(f"    {_loading(out, model, names)}")


def _loading(out: Path, model: Model, names: str) -> str:
    """A line of Python that loads the file."""
    file: Any = str(out)
    if out.suffix == ONNX:
        return f'x_hat = onnxruntime.InferenceSession({file!r}).run(None, {{"y": y}})[0]'
    if out.suffix == PROGRAM:
        arguments = "y, lam" if model.hyper or model.members else "y"
        return f"x_hat = jax.export.deserialize(open({file!r}, 'rb').read()).call({arguments})"
    if names == "ours":
        main = model.main
        network = f"UNet({main.width}, {main.out_channels}, norm={main.norm!r}, residual={main.residual})"
        return f"x_hat = {network}.apply(flax.traverse_util.unflatten_dict(dict(numpy.load({file!r})), sep='/'), y)"
    if out.suffix == ".npz":
        return f"network.load_state_dict({{k: torch.from_numpy(a) for k, a in numpy.load({file!r}).items()}})"
    if out.suffix == ".safetensors":
        return f"network.load_state_dict(safetensors.torch.load_file({file!r}))"
    return f"network.load_state_dict(torch.load({file!r}))"
