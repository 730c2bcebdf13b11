"""Convert between PyTorch state dicts of the authors' networks and our model and variables, in both directions.

The networks are the U-Net and the hyper-U-Net, with and without norms. A state dict maps names to arrays:

- A plain U-Net has the blocks `dconv_down1` to `dconv_down4` and `dconv_up3` to `dconv_up1`, and `conv_last`.
- A block is convolution, norm, ReLU, convolution, norm, ReLU. Entries 0, 1, 3 and 4 of it have tensors. Without norms it is
  convolution, ReLU, convolution, ReLU; entries 0 and 2 have tensors.
- A hyper-U-Net has its hidden layers in `hnet.lin1`, `hnet.lin2`, ..., and the U-Net under `unet.`. `hyperkernel` and
  `hyperbias` of a convolution are the linear heads that generate its kernel and its bias. Norms are learned.

Sizes are read from the shapes. The residual connection and the division of the input by its scale have no tensors, so the
caller must say whether there are any.

Kernels are OIHW in PyTorch and HWIO here, also inside the heads, which generate them flat. Linear layers are transposed.
No value changes.
"""

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.models import tensor_files
from hyperrecon_jax.models.hypernet import HyperNet, head_name, to_dense_heads
from hyperrecon_jax.models.model import Model, all_but_norms
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
State = dict[str, np.ndarray]
COUNTER = "num_batches_tracked"
MAX_NAMES = 4  # how many tensors an error lists for each kind of mistake


class _Tensor(NamedTuple):
    """A tensor of a state dict: its place in our variables, and its shape in both."""

    path: tuple[str, ...]
    flax_shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    kernel_shape: tuple[int, ...] | None  # HWIO, if it is a convolution's kernel or the head that generates one


def from_torch(
    state: str | PathLike[str] | Mapping[str, Any], *, residual: bool = True, normalize: bool = False
) -> tuple[Model, Tree]:
    """The model and the variables of a PyTorch state dict.

    The widths, the channels, the number K of loss terms, the number of hidden layers and the norm are read from the shapes.
    The norm is "batch" if there are running statistics, "instance" if norms have only a weight and a bias (the authors have
    no such network), and otherwise "none".

    Args:
        state: names -> arrays of NumPy or PyTorch, or a file of them (`tensor_files.read`). A state dict under the key
            "state_dict" is unwrapped, and the prefix `module.` of DataParallel is removed.
        residual: whether the network adds the magnitude of its input to its output, as the authors' do.
        normalize: whether the network divides its input by its scale (`unet.UNet`); the authors' do not.

    Returns:
        `(model, variables)`, as from `model.init`, float32. The input of the hypernetwork is the vector of K loss
        coefficients, which our functions compute from lambda (Eqs. 9, 10).

    Raises:
        InputError: if the file cannot be read, or if tensors are missing, left over or of another shape.
    """
    arrays = _read_arrays(state if isinstance(state, Mapping) else tensor_files.read(state))
    model, shapes = _infer_model(arrays, residual=residual, normalize=normalize)
    layout = _make_layout(model, shapes)
    _check_tensors(arrays, layout)
    variables: Tree = {"params": {"hyper": {}, "main": {}}, "batch_stats": {}}
    for name, tensor in layout.items():
        subtree = variables
        for key in tensor.path[:-1]:
            subtree = subtree.setdefault(key, {})
        subtree[tensor.path[-1]] = jnp.asarray(_to_flax(tensor, arrays[name].astype(np.float32)))
    return model, variables


def to_torch(model: Model, variables: Tree, *, batches: int = 0) -> State:
    """The PyTorch state dict of a model. `from_torch` restores exactly the same variables from it.

    The authors' network has no low-rank heads. Their factors are multiplied, and `from_torch` returns dense heads that
    generate the same. Instance norms are written as weight and bias, as in `torch.nn.InstanceNorm2d(affine=True)`. A
    normalised U-Net divides its input by `net_input.intensity_scale` and multiplies its result by it. That has no tensor:
    who uses the state dict must do it.

    Args:
        model: a `unet.UNet`, plain or with a hypernetwork that generates the convolutions (`model.all_but_norms`).
        variables: its variables.
        batches: batch norm's `num_batches_tracked`, which our variables do not have. PyTorch uses it only in a norm without
            momentum.

    Returns:
        Names -> NumPy arrays, in the order of PyTorch's modules.

    Raises:
        InputError: for an ensemble, another main network (such as an unrolled one), a hypernetwork with conditions, or
            another choice of generated leaves.
    """
    if model.num_conditions:
        raise InputError(
            "`model` must have no conditions beside the loss coefficients (`export.plain` takes one network out),"
            f" got {model.num_conditions}."
        )
    if model.members:
        raise InputError(f"`model` must be one network (`export.plain` takes it out), got {len(model.members)} of them.")
    if not isinstance(model.main, UNet):
        raise InputError(f"`model.main` must be a UNet, got {type(model.main).__name__}.")
    convolutions = {(layer, leaf) for layer, _ in _modules(has_norms=False) for leaf in ("kernel", "bias")}
    if model.hyper and (odd := convolutions ^ {path for path, _ in model.hyper.leaves}):
        raise InputError(f"`model.hyper` must generate all of the convolutions and no more, got a choice for {min(odd)}.")
    if model.hyper and (model.hyper.kind not in ("dense", "low_rank") or model.hyper.encoding != "coefficients"):
        raise InputError(
            '`model.hyper` must have "dense" or "low_rank" heads and see "coefficients", to be the authors\','
            f" got {model.hyper.kind!r} and {model.hyper.encoding!r}."
        )
    variables = jax.device_get(variables)
    if model.hyper and model.hyper.kind == "low_rank":
        hyper, dense = to_dense_heads(model.hyper, variables["params"]["hyper"])
        model = model._replace(hyper=hyper)
        variables = {**variables, "params": {**variables["params"], "hyper": dense}}
    leaves = dict(_flat(variables))
    layout = _make_layout(model, {path: np.shape(leaf) for path, leaf in leaves.items()})
    state = {}
    for name, tensor in layout.items():
        state[name] = _to_torch(tensor, np.asarray(leaves[tensor.path]))
        if name.endswith("running_var"):
            state[name.replace("running_var", COUNTER)] = np.asarray(batches, np.int64)
    return state


def _read_arrays(state: Mapping[str, Any]) -> State:
    """The tensors of a state dict as NumPy arrays, without wrappers, prefixes and counters."""
    if isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    arrays = {}
    for name, value in state.items():
        if hasattr(value, "detach"):  # a PyTorch tensor; NumPy has no bfloat16
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise InputError(f"`state` must hold real arrays, got {type(value).__name__} for {name!r}.")
        if not str(name).endswith(COUNTER):
            arrays[str(name).removeprefix("module.")] = array
    return arrays


def _infer_model(arrays: State, **options: bool) -> tuple[Model, dict[tuple[str, ...], tuple[int, ...]]]:
    """The model that fits the shapes of the tensors, and the shapes of its variables.

    Where a tensor is missing, the size is the paper's. `options` are attributes of the U-Net that have no tensors.
    """
    is_hyper = any(name.startswith("hnet.") or ".hyper" in name for name in arrays)
    main, channels = _infer_unet(arrays, is_hyper, options)
    target = jax.eval_shape(main.init, jax.random.key(0), jnp.zeros((8, 8, channels)))
    param_shapes = {path: leaf.shape for path, leaf in _flat(target["params"])}
    stat_shapes = {("batch_stats", *path): leaf.shape for path, leaf in _flat(target.get("batch_stats", {}))}
    if not is_hyper:
        return Model(main), stat_shapes | {("params", "main", *path): shape for path, shape in param_shapes.items()}
    depth = sum(name.startswith("hnet.") and name.endswith(".weight") for name in arrays) or 4
    generated = tuple((path, shape) for path, shape in param_shapes.items() if all_but_norms(path))
    hyper = HyperNet(generated, _size(arrays, "hnet.lin1.weight", 0, 128), depth)
    coefficients = jnp.zeros((_size(arrays, "hnet.lin1.weight", 1, 2),))
    phi: Any = jax.eval_shape(hyper.init, jax.random.key(0), coefficients)["params"]
    learned = {("params", "main", *path): shape for path, shape in param_shapes.items() if not all_but_norms(path)}
    return Model(main, hyper), stat_shapes | learned | {("params", "hyper", *path): leaf.shape for path, leaf in _flat(phi)}


def _infer_unet(arrays: State, is_hyper: bool, options: dict[str, Any]) -> tuple[UNet, int]:
    """The U-Net that fits the shapes of the tensors, and its number of input channels."""
    prefix = "unet." if is_hyper else ""
    names = {name.removeprefix(prefix) for name in arrays}
    if any(name.endswith("running_mean") for name in names):
        norm = "batch"
    else:
        norm = "instance" if "dconv_down1.1.weight" in names else "none"
    if is_hyper:  # of a 3x3 kernel, the head has 9 * channels * width numbers
        width = _size(arrays, "unet.dconv_down1.0.hyperbias.bias", 0, 32)
        channels = _size(arrays, "unet.dconv_down1.0.hyperkernel.bias", 0, 18 * width) // (9 * width) or 2
        out_channels = _size(arrays, "unet.conv_last.hyperbias.bias", 0, 1)
    else:
        width = _size(arrays, "dconv_down1.0.weight", 0, 32)
        channels = _size(arrays, "dconv_down1.0.weight", 1, 2)
        out_channels = _size(arrays, "conv_last.weight", 0, 1)
    return UNet(width, out_channels, norm=norm, **options), channels


def _size(arrays: State, name: str, axis: int, default: int) -> int:
    """The length of an axis of a tensor; `default` if there is no such tensor or axis, or its length is 0."""
    shape = arrays[name].shape if name in arrays else ()
    return shape[axis] if axis < len(shape) and shape[axis] else default


def _make_layout(model: Model, shapes: dict[tuple[str, ...], tuple[int, ...]]) -> dict[str, _Tensor]:
    """Every tensor of the state dict, by name, in PyTorch's order; `shapes` are those of our variables."""
    layout: dict[str, _Tensor] = {}

    def add(name, path, kernel_shape=None):
        flax_shape = shapes[path]
        torch_shape = flax_shape[::-1]
        if kernel_shape is not None and len(flax_shape) == 4:
            height, width, c_in, c_out = flax_shape
            torch_shape = (c_out, c_in, height, width)
        layout[name] = _Tensor(path, flax_shape, torch_shape, kernel_shape)

    hidden = model.hyper.depth if model.hyper else 0
    for i in range(hidden):
        for leaf, torch_leaf in (("kernel", "weight"), ("bias", "bias")):
            add(f"hnet.lin{i + 1}.{torch_leaf}", ("params", "hyper", f"hidden{i}", leaf))
    generated = dict(model.hyper.leaves) if model.hyper else {}
    has_norms = any(path[0] == "params" and "norm" in path[-2] for path in shapes)
    for layer, module in _modules(has_norms):
        module = f"unet.{module}" if hidden else module
        if "norm" in layer:
            for leaf, torch_leaf in (("scale", "weight"), ("bias", "bias")):
                add(f"{module}.{torch_leaf}", ("params", "main", layer, leaf))
            for leaf in ("mean", "var"):
                if ("batch_stats", layer, leaf) in shapes:
                    add(f"{module}.running_{leaf}", ("batch_stats", layer, leaf))
            continue
        for leaf, torch_leaf in (("kernel", "weight"), ("bias", "bias")):
            if not hidden:
                path = ("params", "main", layer, leaf)
                add(f"{module}.{torch_leaf}", path, shapes[path] if leaf == "kernel" else None)
                continue
            head = ("params", "hyper", head_name((layer, leaf)))
            kernel_shape = generated[layer, leaf] if leaf == "kernel" else None
            for head_leaf, torch_head_leaf in (("kernel", "weight"), ("bias", "bias")):
                add(f"{module}.hyper{leaf}.{torch_head_leaf}", (*head, head_leaf), kernel_shape)
    return layout


def _modules(has_norms: bool) -> Iterator[tuple[str, str]]:
    """The names of our layers and of PyTorch's modules, in PyTorch's order."""
    stride = 3 if has_norms else 2
    for block in ("down1", "down2", "down3", "down4", "up3", "up2", "up1"):
        for i in (0, 1):
            yield f"{block}_conv{i}", f"dconv_{block}.{stride * i}"
            if has_norms:
                yield f"{block}_norm{i}", f"dconv_{block}.{stride * i + 1}"
    yield "head", "conv_last"


def _check_tensors(arrays: State, layout: dict[str, _Tensor]) -> None:
    """Raise `InputError` if tensors are missing, left over or of the wrong shape."""
    wrong_shapes = [
        f"{name} {arrays[name].shape} for {tensor.torch_shape}"
        for name, tensor in layout.items()
        if name in arrays and arrays[name].shape != tensor.torch_shape
    ]
    mistakes = {
        "missing": [name for name in layout if name not in arrays],
        "left over": [name for name in arrays if name not in layout],
        "of the wrong shape": wrong_shapes,
    }
    parts = [
        f"{kind}: {', '.join(names[:MAX_NAMES])}{f' and {len(names) - MAX_NAMES} more' if len(names) > MAX_NAMES else ''}"
        for kind, names in mistakes.items()
        if names
    ]
    if parts:
        raise InputError(f"`state` must hold the tensors of the authors' U-Net or hyper-U-Net; {'; '.join(parts)}.")


def _to_flax(tensor: _Tensor, array: np.ndarray) -> np.ndarray:
    """A tensor of PyTorch in our layout."""
    if tensor.kernel_shape is not None:  # each row of a head generates one number of the flat kernel
        kh, kw, c_in, c_out = tensor.kernel_shape
        array = array.reshape(c_out, c_in, kh, kw, -1).transpose(2, 3, 1, 0, 4).reshape(kh * kw * c_in * c_out, -1)
    return np.ascontiguousarray(array.T).reshape(tensor.flax_shape)


def _to_torch(tensor: _Tensor, array: np.ndarray) -> np.ndarray:
    """A leaf of our variables in PyTorch's layout."""
    if tensor.kernel_shape is not None:
        kh, kw, c_in, c_out = tensor.kernel_shape
        array = array.reshape(-1, kh * kw * c_in * c_out).T
        array = array.reshape(kh, kw, c_in, c_out, -1).transpose(3, 2, 0, 1, 4)
        return np.ascontiguousarray(array).reshape(tensor.torch_shape)
    return np.ascontiguousarray(array.T)


def _flat(tree: Tree) -> list[tuple[tuple[str, ...], Any]]:
    """`(path, leaf)` of every leaf."""
    return [(tuple(key.key for key in path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
