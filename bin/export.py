"""Write what a run has learned as a file for other programs: the U-Net of one lambda, or the whole model.

    python -m bin.export --run runs/quickstart --lam 0.3 --out unet.onnx
    python -m bin.export --run runs/quickstart --lam 0.3 --out unet.pt            # or .safetensors, .npz: a state dict
    python -m bin.export --run runs/quickstart --lam 0.3 --out unet.npz --names ours
    python -m bin.export --run runs/quickstart --out model.jaxexport              # any lambda, in any process that has JAX

It ends with a line of Python that loads the file. docs/interop.md has more.
"""

import pathlib
import re

from absl import flags

from bin import _cli
from hyperrecon_jax.runtime.errors import InputError

RUN = flags.DEFINE_string("run", None, "Folder of a run.")
LAM = flags.DEFINE_list(
    "lam", None, "The lambda of the U-Net to write, such as 0.3, or 0.9,0.5 of two; none: the whole model."
)
OUT = flags.DEFINE_string("out", None, "The file: .onnx, .pt, .pth, .safetensors, .npz or .jaxexport.")
NAMES = flags.DEFINE_string("names", "torch", "Of the tensors in a .npz: those of PyTorch, or ours.")


def export() -> int:
    if not RUN.value or not OUT.value:
        raise InputError("Say what to export and to where: --run RUN --out FILE (see --help).")
    lam = None if LAM.value is None else _cli.numbers("lam", LAM.value)
    from hyperrecon_jax.commands import export
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    try:
        export.export_run(pathlib.Path(RUN.value), pathlib.Path(OUT.value), lam=lam, names=NAMES.value)
    except InputError as error:  # arguments are flags here
        raise InputError(re.sub(r"`(lam|out|names)`", r"--\1", str(error))) from error
    return 0


if __name__ == "__main__":
    _cli.main(export)
