"""The authors' PyTorch state dicts <-> our model and variables: the U-Net and the hyper-U-Net, with and without BatchNorm.

A state is a mapping of PyTorch's names to arrays. A plain U-Net has blocks `dconv_down1` to `dconv_down4`, `dconv_up3` to
`dconv_up1`, and `conv_last`. A block is convolution, norm, ReLU, convolution, norm, ReLU, of which 0, 1, 3 and 4 have
tensors; without norms it is convolution, ReLU, convolution, ReLU (0, 2). A hyper-U-Net has its hidden layers in `hnet.lin1`
and on, and the U-Net under `unet.`, where `hyperkernel` and `hyperbias` of a convolution are the linear heads that generate
it, and norms are learned. Sizes are read off the shapes; what has no tensor, the residual, the caller says.

Kernels are OIHW there and HWIO here, also where a head generates them flat; linear layers are transposed. No value changes.
"""

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.models import tensor_files
from hyperrecon_jax.models.hypernet import HyperNet, head_name, with_dense_heads
from hyperrecon_jax.models.model import Model, all_but_norms
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
State = dict[str, np.ndarray]
COUNTER = "num_batches_tracked"
NAMED = 4  # tensors at most that an error names of each kind


class _Tensor(NamedTuple):
    """Where a tensor of theirs is in our variables, and both shapes."""

    path: tuple[str, ...]
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    kernel: tuple[int, ...] | None  # HWIO, where it is a convolution's kernel or the head of one


def from_torch(state: str | PathLike[str] | Mapping[str, Any], *, residual: bool = True) -> tuple[Model, Tree]:
    """The model of a PyTorch state dict, and its variables.

    Widths, channels, the number of loss terms K and of hidden layers, and the norm are read off the shapes: "batch" with
    running statistics, "instance" with a norm's weight and bias alone (not the authors'), "none" without.

    Args:
        state: names -> arrays of NumPy or PyTorch; or a file of them (`tensor_files.read`). A state under the key
            "state_dict" is unwrapped, and the prefix `module.` of DataParallel dropped.
        residual: the network adds the magnitude of its input to its output, as the authors' do.

    Returns:
        `(model, variables)` as of `model.init`, float32. The hypernetwork's input are the K loss coefficients, which our
        functions make of lambda (Eqs. 9, 10).

    Raises:
        InputError: if the file cannot be read, or the tensors are not those of such a network: those that are missing, left
            over or of another shape.
    """
    found = _arrays(state if isinstance(state, Mapping) else tensor_files.read(state))
    model, shapes = _sizes(found, residual)
    layout = _layout(model, shapes)
    _compare(found, layout)
    variables: Tree = {"params": {"hyper": {}, "main": {}}, "batch_stats": {}}
    for name, tensor in layout.items():
        at = variables
        for key in tensor.path[:-1]:
            at = at.setdefault(key, {})
        at[tensor.path[-1]] = jnp.asarray(_to_ours(tensor, found[name].astype(np.float32)))
    return model, variables


def to_torch(model: Model, variables: Tree, *, batches: int = 0) -> State:
    """The PyTorch state dict of a model: `from_torch` of it gives the variables back, to the last bit.

    The authors have no low-rank heads: these are multiplied out, and come back as dense ones that generate the same.
    Instance norms are written as weight and bias, as `torch.nn.InstanceNorm2d(affine=True)` has them.

    Args:
        model: of a `unet.UNet`, plain or with a hypernetwork that generates the convolutions (`model.all_but_norms`).
        variables: its variables.
        batches: batch norm's `num_batches_tracked`, which we do not keep; PyTorch heeds it only in a norm without momentum.

    Returns:
        Names -> NumPy arrays, in the order of PyTorch's modules.

    Raises:
        InputError: for an ensemble, another main network, or another choice of generated leaves.
    """
    if model.members:
        raise InputError(f"`model` must be one network (`export.plain` takes it out), got {len(model.members)} of them.")
    if not isinstance(model.main, UNet):
        raise InputError(f"`model.main` must be a UNet, got {type(model.main).__name__}.")
    convolutions = {(layer, leaf) for layer, _ in _modules(norms=False) for leaf in ("kernel", "bias")}
    if model.hyper and (odd := convolutions ^ {path for path, _ in model.hyper.leaves}):
        raise InputError(f"`model.hyper` must generate all of the convolutions and no more, got a choice for {min(odd)}.")
    if model.hyper and (model.hyper.kind not in ("dense", "low_rank") or model.hyper.encoding != "coefficients"):
        found = f"{model.hyper.kind!r} and {model.hyper.encoding!r}"
        raise InputError(
            f'`model.hyper` must have "dense" or "low_rank" heads and see "coefficients", to be the authors\', got {found}.'
        )
    variables = jax.device_get(variables)
    if model.hyper and model.hyper.kind == "low_rank":
        hyper, dense = with_dense_heads(model.hyper, variables["params"]["hyper"])
        model = model._replace(hyper=hyper)
        variables = {**variables, "params": {**variables["params"], "hyper": dense}}
    leaves = dict(_flat(variables))
    layout = _layout(model, {path: np.shape(leaf) for path, leaf in leaves.items()})
    state = {}
    for name, tensor in layout.items():
        state[name] = _to_theirs(tensor, np.asarray(leaves[tensor.path]))
        if name.endswith("running_var"):
            state[name.replace("running_var", COUNTER)] = np.asarray(batches, np.int64)
    return state


def _arrays(state: Mapping[str, Any]) -> State:
    """The tensors of a state that say something, as NumPy arrays, without what wrapped them."""
    if isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    arrays = {}
    for name, value in state.items():
        if hasattr(value, "detach"):  # PyTorch's; bfloat16 is no type of NumPy's
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise InputError(f"`state` must hold real arrays, got {type(value).__name__} for {name!r}.")
        if not str(name).endswith(COUNTER):
            arrays[str(name).removeprefix("module.")] = array
    return arrays


def _sizes(found: State, residual: bool) -> tuple[Model, dict[tuple[str, ...], tuple[int, ...]]]:
    """The model that the shapes of tensors speak of, and the shapes of its variables; the paper's where they are silent."""

    def size(name, axis, default):
        shape = found[name].shape if name in found else ()
        return shape[axis] if axis < len(shape) and shape[axis] else default

    hyper = any(name.startswith("hnet.") or ".hyper" in name for name in found)
    prefix = "unet." if hyper else ""
    leaves = {name.removeprefix(prefix) for name in found}
    if any(name.endswith("running_mean") for name in leaves):
        norm = "batch"
    else:
        norm = "instance" if "dconv_down1.1.weight" in leaves else "none"
    if hyper:
        width = size("unet.dconv_down1.0.hyperbias.bias", 0, 32)
        channels = size("unet.dconv_down1.0.hyperkernel.bias", 0, 18 * width) // (9 * width) or 2
        out = size("unet.conv_last.hyperbias.bias", 0, 1)
    else:
        width, channels = size("dconv_down1.0.weight", 0, 32), size("dconv_down1.0.weight", 1, 2)
        out = size("conv_last.weight", 0, 1)
    main = UNet(width, out, norm=norm, residual=residual)
    key = jax.random.key(0)
    target = jax.eval_shape(main.init, key, jnp.zeros((8, 8, channels)))
    shapes = {path: leaf.shape for path, leaf in _flat(target["params"])}
    shown = {("batch_stats", *path): leaf.shape for path, leaf in _flat(target.get("batch_stats", {}))}
    if not hyper:
        return Model(main), shown | {("params", "main", *path): shape for path, shape in shapes.items()}
    depth = sum(name.startswith("hnet.") and name.endswith(".weight") for name in found) or 4
    generated = tuple((path, shape) for path, shape in shapes.items() if all_but_norms(path))
    network = HyperNet(generated, size("hnet.lin1.weight", 0, 128), depth)
    terms = jnp.zeros((size("hnet.lin1.weight", 1, 2),))
    phi: Any = jax.eval_shape(network.init, key, terms)["params"]
    learned = {("params", "main", *path): shape for path, shape in shapes.items() if not all_but_norms(path)}
    return Model(main, network), shown | learned | {("params", "hyper", *p): leaf.shape for p, leaf in _flat(phi)}


def _layout(model: Model, shapes: dict[tuple[str, ...], tuple[int, ...]]) -> dict[str, _Tensor]:
    """Every tensor of theirs, by name, in the order of their modules; `shapes` are those of our variables."""
    layout: dict[str, _Tensor] = {}

    def add(name, path, kernel=None):
        ours = shapes[path]
        theirs = ours[::-1]
        if kernel is not None and len(ours) == 4:
            theirs = (ours[3], ours[2], ours[0], ours[1])
        layout[name] = _Tensor(path, ours, theirs, kernel)

    hidden = model.hyper.depth if model.hyper else 0
    for i in range(hidden):
        for leaf, theirs in (("kernel", "weight"), ("bias", "bias")):
            add(f"hnet.lin{i + 1}.{theirs}", ("params", "hyper", f"hidden{i}", leaf))
    generated = dict(model.hyper.leaves) if model.hyper else {}
    norms = any(path[0] == "params" and "norm" in path[-2] for path in shapes)
    for layer, name in _modules(norms):
        name = f"unet.{name}" if hidden else name
        if "norm" in layer:
            for leaf, theirs in (("scale", "weight"), ("bias", "bias")):
                add(f"{name}.{theirs}", ("params", "main", layer, leaf))
            for leaf in ("mean", "var"):
                if ("batch_stats", layer, leaf) in shapes:
                    add(f"{name}.running_{leaf}", ("batch_stats", layer, leaf))
            continue
        for leaf, theirs in (("kernel", "weight"), ("bias", "bias")):
            if not hidden:
                path = ("params", "main", layer, leaf)
                add(f"{name}.{theirs}", path, shapes[path] if leaf == "kernel" else None)
                continue
            head = ("params", "hyper", head_name((layer, leaf)))
            kernel = generated[layer, leaf] if leaf == "kernel" else None
            for part, theirs in (("kernel", "weight"), ("bias", "bias")):
                add(f"{name}.hyper{leaf}.{theirs}", (*head, part), kernel)
    return layout


def _modules(norms: bool) -> Iterator[tuple[str, str]]:
    """Our layers with their names there, in the order of theirs."""
    stride = 3 if norms else 2
    for block in ("down1", "down2", "down3", "down4", "up3", "up2", "up1"):
        for i in (0, 1):
            yield f"{block}_conv{i}", f"dconv_{block}.{stride * i}"
            if norms:
                yield f"{block}_norm{i}", f"dconv_{block}.{stride * i + 1}"
    yield "head", "conv_last"


def _compare(found: State, layout: dict[str, _Tensor]) -> None:
    wrong = [
        f"{name} {found[name].shape} for {tensor.theirs}"
        for name, tensor in layout.items()
        if name in found and found[name].shape != tensor.theirs
    ]
    kinds = {
        "missing": [name for name in layout if name not in found],
        "left over": [name for name in found if name not in layout],
        "of the wrong shape": wrong,
    }
    told = [
        f"{what}: {', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"
        for what, names in kinds.items()
        if names
    ]
    if told:
        raise InputError(f"`state` must hold the tensors of the authors' U-Net or hyper-U-Net; {'; '.join(told)}.")


def _to_ours(tensor: _Tensor, a: np.ndarray) -> np.ndarray:
    if tensor.kernel is not None:  # rows of a head are the flat kernel
        kh, kw, c_in, c_out = tensor.kernel
        numbers = kh * kw * c_in * c_out
        a = a.reshape(c_out, c_in, kh, kw, -1).transpose(2, 3, 1, 0, 4).reshape(numbers, -1)
    return np.ascontiguousarray(a.T).reshape(tensor.ours)


def _to_theirs(tensor: _Tensor, a: np.ndarray) -> np.ndarray:
    if tensor.kernel is not None:
        kh, kw, c_in, c_out = tensor.kernel
        a = a.reshape(-1, kh * kw * c_in * c_out).T
        a = a.reshape(kh, kw, c_in, c_out, -1).transpose(3, 2, 0, 1, 4)
        return np.ascontiguousarray(a).reshape(tensor.theirs)
    return np.ascontiguousarray(a.T)


def _flat(tree: Tree) -> list[tuple[tuple[str, ...], Any]]:
    return [(tuple(key.key for key in path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
