"""Choose lambda for a run by a number, and say what the choice is worth on the test images.

The lambda with the best PSNR on the validation images, or with the best value of another metric:

    hyperrecon choose --run runs/quickstart
    hyperrecon choose --run runs/quickstart --metric ssim

Without reference images, by the error of k-space that is withheld from the network; one lambda, or one for each test image:

    hyperrecon choose --run runs/quickstart --metric held_out
    hyperrecon choose --run runs/quickstart --metric held_out --per_image

At another acquisition than that of the run:

    hyperrecon choose --run runs/quickstart --acquisition acceleration=8,sigma=0.01

The choice is printed and written to RUN/choice-METRIC.json, or to RUN/choice-METRIC-per_image.json.
"""

import re

from absl import flags

from hyperrecon_jax.cli import command
from hyperrecon_jax.runtime.errors import InputError

RUN = flags.DEFINE_string("run", None, "Folder of a run with a hypernetwork, or of an ensemble.")
METRIC = flags.DEFINE_string(
    "metric", "psnr", "psnr, ssim, mae, mse, hfen, edges or texture; or held_out: by withheld k-space."
)
PER_IMAGE = flags.DEFINE_bool("per_image", False, "Choose for each test image, not one lambda from the validation images.")
FRACTION = flags.DEFINE_float("fraction", 0.1, "With held_out: the part of the samples outside the centre to withhold.")

ACQUISITION = flags.DEFINE_string(
    "acquisition", None, "An acquisition, such as acceleration=8,sigma=0.01,mask=random_lines (default: that of the run)."
)


def choose() -> int:
    """Choose lambda by the flags; returns the exit status."""
    run = command.parse_path(RUN)
    if run is None:
        raise InputError("Say for which run to choose: --run RUN (see --help).")
    if FRACTION.present and METRIC.value != "held_out":
        raise InputError(f"--fraction goes with --metric held_out, got --metric {METRIC.value}.")
    from hyperrecon_jax.commands import choose as choose_command
    from hyperrecon_jax.runs import slim_run
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import

    machine.configure_jax()
    try:
        with slim_run.writable_run(run) as folder:
            choose_command.choose(
                folder,
                metric=METRIC.value,
                per_image=PER_IMAGE.value,
                fraction=FRACTION.value,
                acquisition=ACQUISITION.value,
            )
    except InputError as error:  # rename arguments in the message to the user's flags
        raise InputError(re.sub(r"`(metric|fraction|acquisition)`", r"--\1", str(error))) from error
    return 0


def main() -> None:
    command.run(choose)
