"""Helpers that several tests share: a small network, commands, a small run, and the authors' networks as our variables.

The fixtures have the authors' tensors in PyTorch's names and layouts.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from hyperrecon_jax.models.unet import Conv, NormRelu

ROOT = pathlib.Path(__file__).parents[1]
FIXTURES = pathlib.Path(__file__).parent / "fixtures"


class Net(nn.Module):
    """Small enough to compile in a second: a convolution, a norm, a 1x1 head."""

    norm: str
    out_channels: int = 1
    width: int = 3

    @nn.compact
    def __call__(self, y, *, batch_axes=None):
        x, bias = Conv(self.width, name="conv").without_bias(y)
        x = NormRelu(self.norm, name="norm")(x, bias, batch_axes=batch_axes)
        return Conv(self.out_channels, (1, 1), name="head")(x)


@contextlib.contextmanager
def small_networks():
    """A context in which this process replaces slow parts by quick ones.

    Settings that ask for a U-Net get a `Net`, which compiles in a tenth of the time; so do the iterations of an unrolled
    network. The picture of a run, which takes seconds to draw, is an empty file.
    """
    from hyperrecon_jax import figures
    from hyperrecon_jax.benchmarks import networks
    from hyperrecon_jax.models import unrolled
    from hyperrecon_jax.runs import experiment

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "UNet", lambda width, out_channels, *, norm, **options: Net(norm, out_channels))
        patched.setattr(networks, "UNet", lambda *, norm="instance", **options: Net(norm))
        patched.setattr(unrolled, "UNet", lambda *, out_channels, norm, name, **options: Net(norm, out_channels, name=name))
        patched.setattr(figures, "reconstructions", lambda path, **options: path.touch())
        yield


def run_python(*args, cwd, timeout=300, small=False, stdin=None):
    """Run `python ARGS` in the folder `cwd` with the modules of this checkout; return the finished process.

    With `small`, `args` must be `-m MODULE ...`, and the module runs with `small_networks`.
    """
    if small:
        _, module, *module_args = args
        code = f"import runpy, sys; sys.path.insert(0, {str(FIXTURES.parent)!r}); from helper import small_networks\n"
        code += f"with small_networks(): runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
        args = ("-c", code, *module_args)
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=timeout,
        input=stdin,
    )


# Reads the name of a module, modules to import, and cases; runs the module for each case in a fork of this process.
FORKS = """
import json, os, runpy, sys
module, imports, cases = json.load(sys.stdin)
for name in imports:
    __import__(name)
for args, cwd, *logs in cases:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for stream, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(cwd)
    sys.argv = [module, *args]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)  # an orderly end would touch, and so copy, all memory
    break
"""


def run_forks(module, cases, *, imports, timeout=300):
    """Run `python -m MODULE ARGS` for several cases; return the finished processes.

    Each is a fork of one process, which has imported some modules, because that takes seconds.

    Args:
        module: the name of the module.
        cases: pairs (args, folder), the arguments and where the command runs.
        imports: names of the modules to import.
        timeout: seconds for all cases together.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [[f"{folder}/{k}.{stream}" for stream in ("out", "err")] for k in range(len(cases))]
        lines = [(list(map(str, args)), str(cwd), *log) for (args, cwd), log in zip(cases, logs, strict=True)]
        forks = run_python(
            "-W", "ignore", "-c", FORKS, cwd=folder, timeout=timeout, stdin=json.dumps([module, imports, lines])
        )
        assert forks.returncode == 0, forks.stderr
        return [
            subprocess.CompletedProcess(args, int(status), *(pathlib.Path(path).read_text() for path in log))
            for (args, _), status, log in zip(cases, forks.stdout.split(), logs, strict=True)
        ]


def npy_bytes(array):
    """Return the content of a .npy file with this array."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz_bytes(**arrays):
    """Return the content of a .npz file with these arrays."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def load_fixture(name):
    """Return the arrays of a fixture by name."""
    return dict(np.load(FIXTURES / f"{name}.npz"))


def select_prefix(arrays, prefix):
    """Return the arrays whose name starts with `prefix`; their new names lack it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def to_nhwc(a):
    """Convert images from PyTorch's layout, NCHW."""
    return a.transpose(0, 2, 3, 1)


def flax_path(torch_name):
    """Convert a name of the authors' U-Net: `dconv_down1.3.weight` -> `("down1_conv1", "kernel")`.

    The number is the position in the block: 0 conv, 1 norm, 2 ReLU, 3 conv, 4 norm.
    """
    if torch_name.startswith("conv_last"):
        layer = "head"
    else:
        block, index = re.match(r"dconv_(\w+?)\.(\d)", torch_name).groups()
        layer = f"{block}_{'conv' if index in '03' else 'norm'}{int(index) // 3}"
    leaf = torch_name.split(".")[-1]
    kinds = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
    return layer, kinds.get(leaf) or ("scale" if "_norm" in layer else "kernel")


def unet_tree(state):
    """Convert tensors of a plain U-Net to a tree of parameters or of running statistics."""
    leaves = {}
    for name, a in state.items():
        if not name.endswith("num_batches_tracked"):
            leaves[flax_path(name)] = a.transpose(2, 3, 1, 0) if a.ndim == 4 else a
    return unflatten_dict(leaves)


def hyper_params(state, kernel_shapes):
    """Convert tensors of a hyper-U-Net to `{"hyper": ..., "main": ...}`; `kernel_shapes` has the HWIO shape by path."""
    hyper, main = {}, {}
    for name, a in select_prefix(state, "hnet.").items():
        layer, leaf = name.split(".")
        hyper.setdefault(f"hidden{int(layer[3:]) - 1}", {})["kernel" if leaf == "weight" else "bias"] = a.T
    for name, a in select_prefix(state, "unet.").items():
        if "hyper" not in name:
            main[name] = a
            continue
        target, kind, leaf = re.match(r"(.*)\.hyper(kernel|bias)\.(weight|bias)", name).groups()
        path = flax_path(f"{target}.{'weight' if kind == 'kernel' else 'bias'}")
        if kind == "kernel":  # the rows of a head are the flat kernel: OIHW in PyTorch, HWIO in Flax
            kh, kw, c_in, c_out = kernel_shapes[path]
            a = a.reshape(c_out, c_in, kh, kw, -1).transpose(2, 3, 1, 0, 4).reshape(*a.shape)
        hyper.setdefault("head:" + ".".join(path), {})["kernel" if leaf == "weight" else "bias"] = a.T
    return {"hyper": hyper, "main": unet_tree(main)}


def stats_only(state):
    return {k: v for k, v in state.items() if "running" in k}


def params_only(state):
    return {k: v for k, v in state.items() if "running" not in k and "tracked" not in k}


def assert_trees_close(actual, expected, *, rtol=1e-4):
    """Check that each leaf differs from the expected leaf by at most `rtol` times the largest entry of that leaf."""
    from flax.traverse_util import flatten_dict

    actual, expected = flatten_dict(actual), flatten_dict(expected)
    assert actual.keys() == expected.keys()
    for path, leaf in expected.items():
        assert actual[path].shape == leaf.shape, path
        atol = rtol * max(np.abs(leaf).max(), 1e-6)
        np.testing.assert_allclose(actual[path], leaf, rtol=0, atol=atol, err_msg=str(path))


def read_events(folder):
    """Return the events in TensorBoard's files. A record is: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return events


def write_splits(folder, *, shape=(16, 16), **counts):
    """Write so many random images of each split to `folder / "SPLIT.npy"`; return the settings `config.data` for them."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        np.save(folder / f"{split}.npy", rng.random((count, *shape), np.float32))
    return {"source": "arrays", **{split: str(folder / f"{split}.npy") for split in counts}}


def explorable_config(folder, *, task=None, **model):
    """Return settings of a HyperRecon of two losses without noise, with images in `folder`.

    `task` and `model` have further settings of the task and of the model.
    """
    from hyperrecon_jax.runs.config import complete

    settings = {
        "data": write_splits(folder, train=4, val=2, test=3),
        "loss": {"terms": ("mae", "ssim"), "scales": (1.0, 1.0)},
        "model": {"width": 2, "hyper_width": 3, **model},
        "task": {"acceleration": 2.0, **(task or {})},
        "train": {"steps": 2, "batch": 4},
    }
    return complete(settings)


def train_explorable(folder, **options):
    """Train with `explorable_config` for two steps, in `folder / "run"`; return the folder."""
    from hyperrecon_jax.commands import train

    train.train(explorable_config(folder, **options), folder / "run", say=lambda _: None)
    return folder


def write_explorable(folder, **options):
    """As `train_explorable`, with random parameters: nothing is compiled."""
    write_run(explorable_config(folder, **options), folder / "run")
    return folder


def write_run(config, workdir):
    """Write a run with a checkpoint of random parameters, as if these were trained for `config.train.steps` steps."""
    import jax
    from random_models import random_variables

    from hyperrecon_jax.runs import checkpoint, experiment, run_folder
    from hyperrecon_jax.training.step import initial_state

    model, shapes, _ = experiment.make_model(config)
    variables = random_variables(shapes)
    shapes = jax.eval_shape(lambda: initial_state(model, variables, experiment.make_optimizer(config)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = zeros._replace(step=np.array(config.train.steps, np.int32), **variables)
    run_folder.create_workdir(workdir, config.to_dict(), size=0)
    with checkpoint.manager(workdir, keep=1) as checkpoints:
        checkpoint.save(checkpoints, state, config.to_dict())
