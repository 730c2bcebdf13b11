"""Choose lambda for a run by a number, and say what that is worth on the test images.

    python -m bin.choose --run runs/quickstart                                   # one lambda: the best PSNR on validation
    python -m bin.choose --run runs/quickstart --metric ssim
    python -m bin.choose --run runs/quickstart --metric held_out                 # without the truth: by withheld k-space
    python -m bin.choose --run runs/quickstart --metric held_out --per_image     # a lambda for each test image

The choice is printed and kept in RUN/choice-METRIC.json, or RUN/choice-METRIC-per_image.json.
"""

import pathlib

from absl import flags

from bin import _cli

RUN = flags.DEFINE_string("run", None, "Folder of a run with a hypernetwork, or of an ensemble.")
METRIC = flags.DEFINE_string("metric", "psnr", "psnr, ssim, mae, mse, hfen; or held_out: k-space kept from the network.")
PER_IMAGE = flags.DEFINE_bool("per_image", False, "A lambda for each test image, not one from the validation images.")
FRACTION = flags.DEFINE_float("fraction", 0.1, "For held_out: the part of the samples outside of the centre to withhold.")


def choose() -> int:
    from hyperrecon_jax.commands import choose
    from hyperrecon_jax.runtime import machine  # after the flags: JAX takes seconds to import
    from hyperrecon_jax.runtime.errors import InputError

    machine.start()
    if not RUN.value:
        raise InputError("Say for which run to choose: --run RUN (see --help).")
    choose.choose(pathlib.Path(RUN.value), metric=METRIC.value, per_image=PER_IMAGE.value, fraction=FRACTION.value)
    return 0


if __name__ == "__main__":
    _cli.main(choose)
