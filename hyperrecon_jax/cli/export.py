"""Write the U-Net of one lambda, or the whole model, as a file for other programs.

The U-Net of one lambda, as ONNX or as a PyTorch state dict (.pt, .safetensors, .npz):

    hyperrecon export --run runs/unet --lam 0.3 --out unet.onnx
    hyperrecon export --run runs/unet --lam 0.3 --out unet.pt
    hyperrecon export --run runs/unet --lam 0.3 --out unet.npz --names ours

The whole model, for any lambda in any process that has JAX:

    hyperrecon export --run runs/quickstart --out model.jaxexport

Of a run of a range of acquisitions, the program of another acquisition than the middle of the range:

    hyperrecon export --run pretrained --out model.jaxexport --acquisition acceleration=8,sigma=0.01

The whole model, as a small folder that all commands take as a run:

    hyperrecon export --run runs/quickstart --out small.run

The last line that it prints is the Python that loads the file. docs/interop.md has more.
"""

import re

import numpy as np
from absl import flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime.errors import InputError

RUN = flags.DEFINE_string("run", None, "Folder of a run, or 'pretrained': the model of the package.")
LAM = flags.DEFINE_list("lam", None, "Lambda of the U-Net, such as 0.3, or 0.9,0.5 for two; without it: the whole model.")
OUT = flags.DEFINE_string("out", None, "The file: .onnx, .pt, .pth, .safetensors, .npz, .jaxexport; or the folder: .run.")
ACQUISITION = flags.DEFINE_string(
    "acquisition", None, "Of a run of a range: an acquisition, such as acceleration=8,sigma=0.01 (default: its middle)."
)
NAMES = flags.DEFINE_string("names", "torch", "Names of the tensors in a .npz: those of PyTorch (torch), or ours.")


def export() -> int:
    """Export by the flags; returns the exit status."""
    run, out = command.parse_path(RUN), command.parse_path(OUT)
    if run is None or out is None:
        raise InputError("Say what to export and to where: --run RUN --out FILE (see --help).")
    lam = None if LAM.value is None else np.array(command.parse_numbers("lam", LAM.value))
    from hyperrecon_jax.commands import export as export_command
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    try:
        export_command.export_run(run, out, lam=lam, names=NAMES.value, acquisition=ACQUISITION.value)
    except InputError as error:  # rename arguments in the message to the user's flags
        raise InputError(re.sub(r"`(lam|out|names|acquisition)`", r"--\1", str(error))) from error
    return 0


def main() -> None:
    command.run(export)
