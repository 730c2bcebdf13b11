"""An unrolled network: data consistency with the sample's own measurement, and a U-Net correction, several times.

    z_0 = the zero-filled image,   z_{i+1} = u_i + U_i(u_i),   u_i = prox(z_i; weight_i)

`prox` (`physics/proximal.py`) moves the image towards the measurement; the U-Net U_i corrects the complex image, as two
channels. The result is the magnitude of the last z. Every U-Net and every weight has its own parameters, and the
hypernetwork generates them as those of any network. The design is that of MoDL (Aggarwal et al., IEEE TMI 38:394, 2019)
with a U-Net for each iteration, as in the end-to-end variational network (Sriram et al., MICCAI 2020).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.physics.net_input import PhysicsInput, divide_by, intensity_scale
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.physics.proximal import prox
from hyperrecon_jax.runtime.errors import InputError


class Unrolled(nn.Module):
    """Unrolled network for one sample.

    Attributes:
        width: channels of every level of the U-Nets.
        iterations: the number of iterations, each with a data-consistency step and a U-Net.
        norm, normalize, precision, remat: as for `unet.UNet`. Data consistency is always computed in float32.
    """

    width: int = 16
    iterations: int = 3
    norm: str = "instance"
    normalize: bool = True
    precision: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, net_input: PhysicsInput, *, batch_axes: tuple[str, ...] | None = None) -> jax.Array:
        """Reconstruct one sample: `(h, w, 1)`, at least 0.

        Args:
            net_input: from `Problem.to_physics_input`; its image is `(h, w, 2)`, of any size.
            batch_axes: as for `unet.UNet`. Pass `()` in training with another norm, too: it is faster.

        Raises:
            InputError: for another input, or an unknown `norm` or `precision`.
        """
        if not isinstance(net_input, PhysicsInput):
            raise InputError(
                f"`net_input` of an unrolled network must be a PhysicsInput, from `Problem.to_physics_input`, got "
                f"{type(net_input).__name__}."
            )
        scale = intensity_scale(net_input) if self.normalize else jnp.ones(())
        scaled: Any = divide_by(net_input, scale)
        # A loop compiles faster. In training it would copy all activations of an iteration, for the backward pass.
        is_training = batch_axes is not None
        iterate = nn.scan(
            Iteration,
            variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},  # the last: if Flax is asked for them
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.iterations,
            unroll=self.iterations if is_training else 1,
        )
        unet = {"width": self.width, "norm": self.norm, "precision": self.precision, "remat": self.remat}
        z, _ = iterate(FrozenDict(unet), batch_axes, name="iterations")(scaled.image, scaled)
        return magnitude(z) * scale


class Iteration(nn.Module):
    """One iteration: data consistency, and a U-Net that corrects the image."""

    unet: FrozenDict[str, Any]  # attributes of the U-Net
    batch_axes: tuple[str, ...] | None

    @nn.compact
    def __call__(self, z: jax.Array, net_input: PhysicsInput) -> tuple[jax.Array, None]:
        """The next image, `(h, w, 2)`, as `nn.scan` expects it."""
        log_weight = self.param("log_weight", nn.initializers.constant(-1.0), ())
        u = prox(net_input, z, weight=jnp.exp(log_weight))
        unet = UNet(out_channels=2, residual=False, head_init=nn.initializers.zeros, name="unet", **self.unet)
        return u + unet(u, batch_axes=self.batch_axes), None
