"""What several tests share: the reference networks (PyTorch names and layouts) as our variables, and a small network."""

import contextlib
import io
import os
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from hyperrecon_jax.models.unet import Conv, Norm

ROOT = pathlib.Path(__file__).parents[1]
FIXTURES = pathlib.Path(__file__).parent / "fixtures"


class Net(nn.Module):
    """Small enough to compile in a second: a convolution, a norm, a 1x1 head."""

    norm: str
    out_channels: int = 1
    width: int = 3

    @nn.compact
    def __call__(self, y, *, batch_axes=None):
        x = nn.relu(Norm(self.norm, name="norm")(Conv(self.width, name="conv")(y), batch_axes=batch_axes))
        return Conv(self.out_channels, (1, 1), name="head")(x)


@contextlib.contextmanager
def small_networks():
    """Inside, `Net` is where settings ask for a U-Net, which takes ten times as long to compile, and a run's picture, which
    takes seconds to draw, is empty; in this process alone.
    """
    from hyperrecon_jax import figures
    from hyperrecon_jax.benchmarks import networks
    from hyperrecon_jax.runs import experiment

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "UNet", lambda width, out_channels, *, norm, **options: Net(norm, out_channels))
        patched.setattr(networks, "UNet", lambda *, norm="instance", **options: Net(norm))
        patched.setattr(figures, "reconstructions", lambda path, **options: path.touch())
        yield


def python(*args, cwd, timeout=300, small=False):
    """What `python ARGS` does in a folder, with this checkout's modules; of `-m MODULE ...` with `small_networks`."""
    if small:
        _, module, *rest = args
        code = f"import runpy, sys; sys.path.insert(0, {str(FIXTURES.parent)!r}); from helper import small_networks\n"
        code += f"with small_networks(): runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
        args = ("-c", code, *rest)
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def npy(array):
    """The content of an array's .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def fixture(name):
    return dict(np.load(FIXTURES / f"{name}.npz"))


def part(arrays, prefix):
    """The arrays whose name starts with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def nhwc(a):
    return a.transpose(0, 2, 3, 1)


def our_path(torch_name):
    """`dconv_down1.3.weight` -> `("down1_conv1", "kernel")`; sequential: 0 conv, 1 norm, 2 ReLU, 3 conv, 4 norm."""
    if torch_name.startswith("conv_last"):
        layer = "head"
    else:
        block, index = re.match(r"dconv_(\w+?)\.(\d)", torch_name).groups()
        layer = f"{block}_{'conv' if index in '03' else 'norm'}{int(index) // 3}"
    leaf = torch_name.split(".")[-1]
    kinds = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
    return layer, kinds.get(leaf) or ("scale" if "_norm" in layer else "kernel")


def unet_tree(state):
    """Tensors of a plain U-Net, in PyTorch's names and layouts, as our tree of parameters or running statistics."""
    leaves = {}
    for name, a in state.items():
        if not name.endswith("num_batches_tracked"):
            leaves[our_path(name)] = a.transpose(2, 3, 1, 0) if a.ndim == 4 else a
    return unflatten_dict(leaves)


def hyper_params(state, kernel_shapes):
    """Tensors of a hyper-U-Net as our `{"hyper": ..., "main": ...}`; `kernel_shapes`: our path -> HWIO shape."""
    hyper, main = {}, {}
    for name, a in part(state, "hnet.").items():
        layer, leaf = name.split(".")
        hyper.setdefault(f"hidden{int(layer[3:]) - 1}", {})["kernel" if leaf == "weight" else "bias"] = a.T
    for name, a in part(state, "unet.").items():
        if "hyper" not in name:
            main[name] = a
            continue
        target, kind, leaf = re.match(r"(.*)\.hyper(kernel|bias)\.(weight|bias)", name).groups()
        path = our_path(f"{target}.{'weight' if kind == 'kernel' else 'bias'}")
        if kind == "kernel":  # rows of a head are the flat leaf: OIHW there, HWIO here
            kh, kw, c_in, c_out = kernel_shapes[path]
            a = a.reshape(c_out, c_in, kh, kw, -1).transpose(2, 3, 1, 0, 4).reshape(*a.shape)
        hyper.setdefault("head:" + ".".join(path), {})["kernel" if leaf == "weight" else "bias"] = a.T
    return {"hyper": hyper, "main": unet_tree(main)}


def stats_only(state):
    return {k: v for k, v in state.items() if "running" in k}


def params_only(state):
    return {k: v for k, v in state.items() if "running" not in k and "tracked" not in k}


def assert_trees_close(ours, theirs, *, rtol=1e-4):
    """Every leaf within `rtol` of the reference leaf, relative to that leaf's largest entry."""
    from flax.traverse_util import flatten_dict

    ours, theirs = flatten_dict(ours), flatten_dict(theirs)
    assert ours.keys() == theirs.keys()
    for path, b in theirs.items():
        assert ours[path].shape == b.shape, path
        np.testing.assert_allclose(ours[path], b, rtol=0, atol=rtol * max(np.abs(b).max(), 1e-6), err_msg=str(path))


def read_events(folder):
    """The events of TensorBoard's files, in TFRecord's framing: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return events


def explorable(folder, **model):
    """A HyperRecon of two losses, trained next to nothing without noise, in `folder / "run"`; the folder.

    `model` has more settings of it.
    """
    from hyperrecon_jax.commands import train
    from hyperrecon_jax.runs.config import complete

    rng = np.random.default_rng(0)
    for name, count in (("train", 4), ("val", 2), ("test", 3)):
        np.save(folder / f"{name}.npy", rng.random((count, 16, 16), np.float32))
    settings = {
        "data": {"source": "arrays", **{name: str(folder / f"{name}.npy") for name in ("train", "val", "test")}},
        "loss": {"terms": ("mae", "ssim"), "scales": (1.0, 1.0)},
        "model": {"width": 2, "hyper_width": 3, **model},
        "task": {"acceleration": 2.0},
        "train": {"steps": 2, "batch": 4},
    }
    train.train(complete(settings), folder / "run", say=lambda _: None)
    return folder
