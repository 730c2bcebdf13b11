"""A trained model for programs without this library: the U-Net of one lambda as ONNX, any model through `jax.export`.

`plain` takes the U-Net of one lambda out of a model. It is a model like any other: `interop.to_torch` gives its PyTorch
state dict.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.typing import ArrayLike

from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.interop import to_torch
from hyperrecon_jax.models.model import Model, network_at, reconstruct
from hyperrecon_jax.models.tensor_files import flatten_tree
from hyperrecon_jax.models.unet import LEVELS, UNet, side_margins
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics import operators
from hyperrecon_jax.physics.net_input import SCALE_QUANTILE, NetInput, physics_input
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
OPSET, IR = 18, 8  # versions of ONNX 1.13 (2022), which newer programs can read
EPSILON = 1e-5


def plain(model: Model, variables: Tree, lam: ArrayLike) -> tuple[Model, Tree]:
    """The main network of one lambda, theta = H_phi(lambda), as a model without a hypernetwork.

    Args:
        model: with a hypernetwork, or an ensemble.
        variables: its variables; of a model with conditions, for one condition (`model.at_condition`).
        lam: `(K-1,)` in [0, 1]; for an ensemble, the lambda of a member.

    Returns:
        A model and its variables. Their reconstruction does not depend on lambda; it equals that of the given model at
        `lam` and at the condition.

    Raises:
        InputError: for a lambda of another shape or outside [0, 1], or if no member has it.
    """
    if not model.hyper and not model.members:
        raise InputError("`model` must have a network for more than one lambda; this one is plain already.")
    chosen = hyperparams.check(lam, num_terms(model, variables))
    if chosen.ndim != 1:
        raise InputError(f"`lam` must be one lambda, of shape (K-1,), got shape {chosen.shape}.")
    if model.members:
        members = hyperparams.coefficients(np.asarray(model.members, np.float32))
        if jnp.abs(members - hyperparams.coefficients(chosen)[None]).max(-1).min() > 1e-5:
            lams = "; ".join(",".join(f"{value:g}" for value in member) for member in model.members[:9])
            more = f" and {len(model.members) - 9} more" if len(model.members) > 9 else ""
            raise InputError(f"`lam` must be that of a member of the ensemble, {lams}{more}; got {lam}.")
    theta, batch_stats = network_at(model, variables, jnp.asarray(chosen))
    return Model(model.main), {"params": {"hyper": {}, "main": theta}, "batch_stats": batch_stats}


def num_terms(model: Model, variables: Tree) -> int:
    """The number K of loss terms of a model with a hypernetwork, or of an ensemble."""
    if model.hyper:
        layers = variables["params"]["hyper"]
        first = next(name for name in layers if name == "hidden0" or name.startswith("mixing:"))  # reads the encoded input
        size = int(layers[first]["kernel"].shape[0])
        return (size // 2 if model.hyper.encoding == "circle" else size) - model.num_conditions
    return len(model.members[0]) + 1


def named(variables: Tree) -> dict[str, np.ndarray]:
    """The variables of a plain model by name, such as "params/down1_conv0/kernel", `(3, 3, 2, width)`.

    `flax.traverse_util.unflatten_dict(result, sep="/")` makes the argument of `UNet.apply` from the result.
    """
    tree = {"params": variables["params"]["main"], "batch_stats": variables["batch_stats"]}
    return flatten_tree(jax.device_get(tree))


def serialized(
    model: Model,
    variables: Tree,
    *,
    shape: tuple[int, int],
    coils: int = 0,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """The model as a program with its variables inside, for any process that has JAX.

    `jax.export.deserialize(result).call(*arguments, lam)` gives `x_hat = M[H(lambda)](y)` of each sample, `(b, h, w, 1)`
    for any b. The program of a plain model takes no `lam`. The arguments before `lam`, `(b, K-1)`, are

    - of a U-Net: the network input, `(b, h, w, 2)`;
    - of an unrolled network: the k-space of one coil, `(b, h, w)` complex64; or, with `coils` = c above 0, that of the
      coils and their sensitivities, `(b, c, h, w)` complex64 each. K-space is 0 where it is not sampled, its zero frequency
      is in the corner, and its FFT is orthonormal. The program makes the zero-filled image and the mask from it.

    A model with conditions has that of its variables (`model.at_condition`) in the program. (The program computes one
    sample after the other. On a GPU or TPU, a convolution with a kernel for each sample needs a fixed number of samples.)

    Args:
        model: any model: plain, with a hypernetwork, or an ensemble.
        variables: its variables.
        shape: `(h, w)`.
        coils: number of coils of an unrolled network's k-space; 0: one coil without a sensitivity.
        platforms: where the program can run, independent of this machine.

    Raises:
        InputError: for a shape that the network does not accept.
    """
    variables = jax.device_get(variables)  # constants of the program, on no device
    (batch,) = export.symbolic_shape("b")
    arguments, make_input = _measurement(model, batch, shape, coils)
    has_lam = bool(model.hyper or model.members)
    if has_lam:
        arguments.append(jax.ShapeDtypeStruct((batch, num_terms(model, variables) - 1), jnp.float32))

    @jax.jit
    def reconstruct_batch(*samples):
        constants = jax.tree.map(jnp.asarray, variables)

        def reconstruct_sample(sample):
            lam = sample[-1] if has_lam else jnp.zeros(0)
            return reconstruct(model, constants, lam, make_input(*sample[: len(sample) - has_lam]))

        return jax.lax.map(reconstruct_sample, samples)

    return bytes(export.export(reconstruct_batch, platforms=list(platforms))(*arguments).serialize())


def _measurement(
    model: Model, batch: Any, shape: tuple[int, int], coils: int
) -> tuple[list[jax.ShapeDtypeStruct], Callable[..., NetInput]]:
    """The arguments of a program that a batch is measured by, and the network input of one sample of them."""
    if not isinstance(model.main, Unrolled):
        return [jax.ShapeDtypeStruct((batch, *shape, 2), jnp.float32)], lambda net_input: net_input
    if not coils:
        one_coil = jax.ShapeDtypeStruct((batch, *shape), jnp.complex64)
        return [one_coil], lambda kspace: _infer_input(kspace[..., None])
    several = jax.ShapeDtypeStruct((batch, coils, *shape), jnp.complex64)
    return [several] * 2, _infer_input


def _infer_input(kspace: jax.Array, maps: jax.Array | None = None) -> NetInput:
    """The network input of k-space that is zero where it was not sampled."""
    return physics_input(operators.infer_operator(kspace, maps), kspace)


def onnx_bytes(model: Model, variables: Tree, *, shape: tuple[int, int]) -> bytes:
    """A plain U-Net as an ONNX graph: `y`, `(batch, 2, h, w)` -> `x_hat`, `(batch, 1, h, w)`, float32, for any batch.

    `y` is the network input. A normalised U-Net divides it by its scale inside the graph. Tensors have the names of
    `interop.to_torch`. The package `onnx` must be installed.

    Args:
        model: a plain `unet.UNet`, for example from `plain`.
        variables: its variables.
        shape: `(h, w)`.

    Raises:
        InputError: for another model, such as an unrolled network, or an impossible shape, or if `onnx` is not installed.
    """
    if isinstance(model.main, Unrolled):
        raise InputError(
            "`model` must be a U-Net: ONNX runtimes have no complex FFT for the unrolled network (`serialized`)."
        )
    if model.hyper or model.members or not isinstance(model.main, UNet):
        raise InputError(
            "`model` must be a plain U-Net: of a model for many lambdas, the one of a chosen lambda (`plain`)."
        )
    if len(shape) != 2 or any(side < 1 for side in shape):
        raise InputError(f"`shape` must be two sides above 0, got {tuple(shape)}.")
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise InputError("An ONNX graph takes the package onnx, which is not installed.") from None

    state = to_torch(model, variables)
    constants: dict[str, np.ndarray] = {"scales": np.asarray([1, 1, 2, 2], np.float32), "axes": np.asarray([1], np.int64)}
    if model.main.normalize:
        constants |= _scale_constants(shape)
    is_padded = any(map(any, side_margins(shape)))
    if is_padded:
        constants |= _padding_constants(shape)
    nodes = _onnx_nodes(model.main, state, is_padded=is_padded)
    input_names = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in (state | constants).items() if name in input_names]
    channels = {"y": state["dconv_down1.0.weight"].shape[1], "x_hat": model.main.out_channels}
    y, x_hat = (helper.make_tensor_value_info(name, 1, ["batch", c, *shape]) for name, c in channels.items())  # 1: float32
    graph = helper.make_graph(nodes, "unet", [y], [x_hat], tensors)
    opset = [helper.make_opsetid("", OPSET)]
    onnx_model = helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="hyperrecon_jax")
    onnx.checker.check_model(onnx_model)
    return bytes(onnx_model.SerializeToString())


def _onnx_nodes(unet: UNet, state: dict[str, np.ndarray], *, is_padded: bool) -> list[Any]:
    """The nodes of the graph: the U-Net's layers from `y` to `x_hat`, whose tensors are those of `state`.

    With `is_padded` the sides of the image are padded and cropped, with the tensors of `_padding_constants`.
    """
    from onnx import helper

    nodes: list[Any] = []

    def add(kind, *inputs, unused=(), **options):
        nodes.append(helper.make_node(kind, inputs, [f"{kind.lower()}{len(nodes)}", *unused], **options))
        return nodes[-1].output[0]

    def add_layer(x, name):
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        if (weight := state[inputs[1]]).ndim == 4:
            sides = weight.shape[2:]
            return add("Conv", *inputs, kernel_shape=sides, pads=[side // 2 for side in (*sides, *sides)])
        if unet.norm == "instance":
            return add("InstanceNormalization", *inputs, epsilon=EPSILON)
        return add("BatchNormalization", *inputs, f"{name}.running_mean", f"{name}.running_var", epsilon=EPSILON)

    def add_block(x, name):
        layers = list(dict.fromkeys(tensor.rpartition(".")[0] for tensor in state if tensor.startswith(f"{name}.")))
        before_relu = layers if unet.norm == "none" else layers[1::2]
        for layer in layers:
            x = add_layer(x, layer)
            if layer in before_relu:
                x = add("Relu", x)
        return x

    y = scale = "y"
    if unet.normalize:
        scale = _add_scale(add)
        y = add("Div", "y", add("Where", add("Greater", scale, "zero"), scale, "one"))
    x, skips = y, []
    if is_padded:
        x = add("Gather", add("Gather", x, "padded_rows", axis=2), "padded_columns", axis=3)
    for level in range(1, LEVELS):
        x = add_block(x, f"dconv_down{level}")
        skips.append(x)
        x = add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = add_block(x, f"dconv_down{LEVELS}")
    for level in range(LEVELS - 1, 0, -1):
        x = add("Resize", x, "", "scales", mode="linear", coordinate_transformation_mode="align_corners")
        x = add_block(add("Concat", x, skips.pop(), axis=1), f"dconv_up{level}")
    x = add_layer(x, "conv_last")
    if is_padded:
        x = add("Gather", add("Gather", x, "rows", axis=2), "columns", axis=3)
    if unet.residual:
        x = add("Add", x, add("ReduceL2", y, "axes", keepdims=1))
    if unet.normalize:
        add("Mul", x, scale)
    nodes[-1].output[0] = "x_hat"
    return nodes


def _padding_constants(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """The rows and columns of an image that make the padded one, and those of the padded image that are the image."""
    constants = {}
    for name, side, margins in zip(("rows", "columns"), shape, side_margins(shape), strict=True):
        constants[f"padded_{name}"] = np.pad(np.arange(side, dtype=np.int64), margins, "symmetric")
        constants[name] = np.arange(margins[0], margins[0] + side, dtype=np.int64)
    return constants


def _scale_constants(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """The constants of `_add_scale`, for images of a shape `(h, w)`."""
    position = SCALE_QUANTILE * (math.prod(shape) - 1)  # among the sorted pixels; a fraction is interpolated
    below = math.floor(position)
    return {
        "flat": np.asarray([0, -1], np.int64),
        "count": np.asarray([math.prod(shape) - below], np.int64),
        "last": np.asarray([-2, -1], np.int64),  # the pixels next to the position, the larger one first
        "first": np.asarray([0], np.int64),
        "parts": np.asarray([[position - below], [1 - (position - below)]], np.float32),
        "column": np.asarray([-1, 1, 1, 1], np.int64),
        "zero": np.zeros(1, np.float32),
        "one": np.ones(1, np.float32),
    }


def _add_scale(add: Callable[..., str]) -> str:
    """Add the nodes of `net_input.intensity_scale` of each sample of `y`; the name of their result, `(batch, 1, 1, 1)`."""
    pixels = add("Reshape", add("ReduceL2", "y", "axes", keepdims=1), "flat")
    brightest = add("TopK", pixels, "count", unused=["indices"], axis=1)
    quantile = add("Reshape", add("MatMul", add("Gather", brightest, "last", axis=1), "parts"), "column")
    maximum = add("Reshape", add("Gather", brightest, "first", axis=1), "column")
    return add("Where", add("Greater", quantile, "zero"), quantile, maximum)
