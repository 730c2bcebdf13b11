"""Native kernels: their numbers, and that whatever is missing or broken leaves the path without them."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import ROOT
from jax.sharding import PartitionSpec
from scipy.signal import correlate2d

from hyperrecon_jax.models import native
from hyperrecon_jax.models.conv import conv2d
from hyperrecon_jax.models.norm import instance_norm_relu, instance_norm_relu_by_xla
from hyperrecon_jax.runtime.machine import core_count

is_installed = native.find_library() is not None and native.find_compiler() is not None
needs_native = pytest.mark.skipif(not is_installed, reason="needs the extra `onednn` and a C++ compiler")
WIDE = "conv float32 wide", "correlate float32 wide"


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The compiled file, which is registered with JAX in this process."""
    file = native.compile_source(native.find_compiler(), native.find_library(), tmp_path_factory.mktemp("native"))
    native.register(native.find_library(), file)
    return file


@pytest.fixture
def active(compiled, monkeypatch):
    """Native kernels compute all float32 convolutions and norms."""
    classes = {native.class_name(function, jnp.float32, c) for function in native.FUNCTIONS for c in (1, 32)}
    monkeypatch.setattr(native, "_active", frozenset(classes))
    jax.clear_caches()  # of what was traced without
    yield
    jax.clear_caches()


@needs_native
@pytest.mark.parametrize("sides", [(3, 3), (5, 3)])
@pytest.mark.parametrize("channels", [(2, 8), (9, 16), (16, 8)])
@pytest.mark.parametrize("size", [(8, 8), (37, 20)])  # of strips of rows: half a one; two and a part of one
def test_numbers_equal_scipy(compiled, size, channels, sides):
    (h, w), (c_in, c_out), (kh, kw) = size, channels, sides
    x = random(0, 2, 3, h, w, c_in)
    padded = np.pad(x, [(0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)])
    kernel, ct = random(1, 2, kh, kw, c_in, c_out), random(2, 2, 3, h, w, c_out)
    y = np.zeros(ct.shape)
    gradient = np.zeros(kernel.shape)
    for g, n, i, o in np.ndindex(2, 3, c_in, c_out):
        image = padded[g, n, :, :, i].astype(float)
        y[g, n, :, :, o] += correlate2d(image, kernel[g, :, :, i, o].astype(float), "valid")
        gradient[g, :, :, i, o] += correlate2d(image, ct[g, n, :, :, o].astype(float), "valid")
    for actual, expected in ((native.conv(x, kernel), y), (native.correlate(x, ct, sides=sides), gradient)):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@needs_native
def test_bfloat16_equals_float32_or_is_refused(compiled):
    """A processor without products of bfloat16 refuses it with an error, by which the trial leaves it out."""
    x, kernel, ct = random(0, 2, 1, 20, 8, 16), random(1, 2, 3, 3, 16, 8), random(2, 2, 1, 20, 8, 8)
    correlate = partial(native.correlate, sides=(3, 3))
    for function, arrays in ((native.conv, (x, kernel)), (correlate, (x, ct))):
        rounded = [jnp.asarray(array, jnp.bfloat16) for array in arrays]
        try:
            actual = np.asarray(function(*rounded), np.float32)
        except jax.errors.JaxRuntimeError:
            continue
        expected = np.asarray(function(*(array.astype(jnp.float32) for array in rounded)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-2 * np.abs(expected).max())


MAPS = {
    "one": (lambda f: f, (), ()),
    "images": (lambda f: jax.vmap(f, (0, None)), (3,), ()),
    "samples": (jax.vmap, (4,), (4,)),
    "samples x images": (lambda f: jax.vmap(jax.vmap(f, (0, None))), (4, 3), (4,)),
}


@needs_native
@pytest.mark.parametrize("name", MAPS)
def test_value_and_gradients_are_those_of_xla(active, monkeypatch, name):
    mapped, x_axes, kernel_axes = MAPS[name]
    arrays = random(0, *x_axes, 24, 16, 16), random(1, *kernel_axes, 3, 3, 16, 8)
    weight = random(2, *x_axes, 24, 16, 8)

    def lower():
        jax.clear_caches()
        value = lambda x, kernel: jnp.sum(jnp.tanh(mapped(conv2d)(x, kernel)) * weight)  # noqa: E731
        return jax.jit(jax.value_and_grad(value, argnums=(0, 1))).lower(*arrays)

    by_native = lower()
    assert all(native.FUNCTIONS[name] in by_native.as_text() for name in ("conv", "correlate"))
    monkeypatch.setattr(native, "_active", frozenset())
    by_xla = lower()
    assert "Hyperrecon" not in by_xla.as_text()
    actual, expected = (lowered.compile()(*arrays) for lowered in (by_native, by_xla))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), actual, expected)


@needs_native
def test_two_devices_work_side_by_side(active):
    """Both threads use their own memory: the results stay those of one device, to the bit."""
    mesh = jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("device")

    def value_and_gradients(x, kernel):
        y, pull_back = jax.vjp(jax.vmap(conv2d), x, kernel)
        return y, *pull_back(jnp.sin(y))

    sharded = jax.shard_map(value_and_gradients, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    arrays = random(0, 8, 40, 40, 16), random(1, 8, 3, 3, 16, 16)
    expected = jax.jit(value_and_gradients)(*arrays)
    for _ in range(20):
        jax.tree.map(np.testing.assert_array_equal, jax.jit(sharded)(*arrays), expected)


@needs_native
def test_only_widths_that_were_tried(active):
    """2 or 20 channels of the result stay with XLA, as do other types."""
    x = jnp.zeros((1, 1, 8, 8, 16))
    assert native.is_active("conv", x, jnp.zeros((1, 3, 3, 16, 24)))
    for c_out in (2, 20):
        assert not native.is_active("conv", x, jnp.zeros((1, 3, 3, 16, c_out)))
    assert not native.is_active("conv", x.astype(jnp.bfloat16), jnp.zeros((1, 3, 3, 16, 24), jnp.bfloat16))
    assert not native.is_active("correlate", x.astype(jnp.bfloat16), jnp.zeros((1, 1, 8, 8, 24)))


def norm_reference(x, scale, bias, ct):
    """The norm with ReLU of `(n, h, w, c)` and its cotangents, in float64, from the textbook formula."""
    x, scale, bias, ct = (np.asarray(array, float) for array in (x, scale[:, None, None], bias[:, None, None], ct))
    inverse = 1 / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    h = (x - x.mean((1, 2), keepdims=True)) * inverse
    y = np.maximum(h * scale + bias, 0)
    g = ct * (y > 0)
    mean = partial(np.mean, axis=(1, 2), keepdims=True)
    return y, scale * inverse * (g - mean(g) - h * mean(g * h)), (g * h).sum((1, 2)), g.sum((1, 2))


NORMS = {  # height, width, channels; the mean of each channel in its standard deviations
    "a group in a pixel": (3, 5, 64, 0),
    "one group": (4, 2, 8, 0),
    "many blocks": (90, 70, 16, 0),
    "thin": (16, 24, 4, 0),
    "one channel": (8, 8, 1, 0),
    "far from 0": (96, 64, 8, 1000),
}


@needs_native
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_norm_equals_its_formula(active, monkeypatch, dtype, name):
    height, width, channels, mean = NORMS[name]
    classes = native.active_classes() | {native.class_name("norm", jnp.bfloat16, c) for c in (1, 32)}
    monkeypatch.setattr(native, "_active", classes)
    x = jnp.asarray(mean + random(0, 3, height, width, channels), dtype)
    scale, bias = 1 + random(1, 3, channels) ** 2, random(2, 3, channels)
    pre_activation = norm_reference(x, scale, bias + 1e3, x)[0] - 1e3
    ct = jnp.asarray(np.where(np.abs(pre_activation) < 1e-3, 0, random(3, *x.shape)), dtype)  # not at the kink of ReLU

    def with_gradient(x, scale, bias, ct):
        y, pull_back = jax.vjp(jax.vmap(instance_norm_relu), x, scale, bias)
        return y, *pull_back(ct)

    program = jax.jit(with_gradient).lower(x, scale, bias, ct)
    assert all(native.FUNCTIONS[function] in program.as_text() for function in ("norm", "norm_gradient"))
    rounding = 1e-2 if dtype == "bfloat16" else 1e-6 * max(1, mean)
    for actual, expected in zip(program.compile()(x, scale, bias, ct), norm_reference(x, scale, bias, ct), strict=True):
        np.testing.assert_allclose(
            np.asarray(actual, float), expected, rtol=0, atol=rounding * np.abs(expected).max() + 1e-6
        )


@needs_native
def test_equal_values_are_summed_exactly(active):
    """Sums of many equal numbers in float32 would be off by 8e-5 at this size, by more in larger images."""
    x = 2 * np.random.default_rng(0).integers(-3, 3, (1, 128, 128, 32)).astype(np.float32) + 1
    scale, bias = np.ones((1, 32), np.float32), np.zeros((1, 32), np.float32)
    y = jax.jit(jax.vmap(instance_norm_relu))(x, scale, bias)
    np.testing.assert_allclose(y, norm_reference(x, scale, bias, x)[0], rtol=0, atol=1e-6)


@needs_native
def test_a_step_in_the_image_does_not_spoil_the_variance(active):
    """The first rows are far from all others, which hardly differ."""
    x = 5 + 1e-3 * random(0, 1, 256, 256, 16)
    x[:, :16] += 1000
    scale, bias = np.ones((1, 16), np.float32), np.zeros((1, 16), np.float32)
    y = jax.jit(jax.vmap(instance_norm_relu))(x, scale, bias)
    np.testing.assert_allclose(y, norm_reference(x, scale, bias, x)[0], rtol=0, atol=2e-6)


@needs_native
def test_a_flat_image_and_nan_are_as_without_the_kernel(active):
    flat, scale, bias = (
        np.full((8, 8, 16), 7, np.float32),
        np.ones(16, np.float32),
        np.linspace(-1, 1, 16, dtype=np.float32),
    )
    for x in (flat, np.where(np.arange(16) == 3, np.nan, flat)):
        by_kernel, by_xla = (
            jax.jit(jax.value_and_grad(lambda *args, f=f: jnp.sum(f(*args) ** 2), (0, 1, 2)))(x, scale, bias)
            for f in (instance_norm_relu, instance_norm_relu_by_xla)
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4), by_kernel, by_xla)


@needs_native
def test_second_derivatives_of_the_norm(active):
    x, scale, bias = random(0, 4, 4, 4), 1 + random(1, 4) ** 2, random(2, 4)

    def penalty(function, *args):
        gradients = jax.grad(lambda *args: jnp.sum(jnp.sin(function(*args))), (0, 1, 2))(*args)
        return sum(jnp.sum(g**2) for g in gradients)

    by_kernel, by_xla = (
        jax.jit(jax.grad(partial(penalty, f), (0, 1, 2)))(x, scale, bias)
        for f in (instance_norm_relu, instance_norm_relu_by_xla)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), by_kernel, by_xla)


@needs_native
def test_the_norm_of_other_sizes_stays_with_xla(active):
    assert native.is_norm_active(jnp.zeros((8, 8, 16)))
    for shape in ((8, 8, 12), (8, 8, 128), (3, 3, 8), (0, 8, 16), (8, 8, 0)):
        assert not native.is_norm_active(jnp.zeros(shape))


# What is chosen. Here a script takes the place of Python in the trial.


COMPILE_SOURCE = native.compile_source


@pytest.fixture
def choose(request, tmp_path, monkeypatch):
    """Returns a function: run `activate` in an empty process state, with a trial that is the shell script `trial`."""

    def copy_compiled(compiler, library, folder):
        return Path(shutil.copy(request.getfixturevalue("compiled"), folder))

    monkeypatch.setattr(native, "compile_source", copy_compiled)
    monkeypatch.setattr(native, "_active", frozenset())
    monkeypatch.setattr(native, "core_count", jax.local_device_count)
    monkeypatch.setattr(native, "register", lambda library, compiled: None)

    def run(trial, *, cache=tmp_path / "cache", **options):
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{trial}\n")
        script.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(script))
            return native.activate(cache, **options)

    return run


def report(**gains):
    return f"echo ignored; echo '{json.dumps({name.replace('_', ' '): gain for name, gain in gains.items()})}'"


FASTER = report(conv_float32_wide=[1.3, 0.97], correlate_float32_wide=[1.09, 1.05], conv_float32_thin=[4, 0.9])
NEVER = "exit 1"


@needs_native
def test_what_is_clearly_faster_is_chosen_once(choose):
    """A class must gain 10 % in the mean of its cases, and must not be slower in any."""
    assert choose(FASTER) == {WIDE[0]}
    assert choose(NEVER) == {WIDE[0]}  # from the cache
    assert choose(NEVER, can_measure=False) == {WIDE[0]}


@needs_native
def test_without_a_verdict_nothing_is_measured_by_commands_that_must_not(choose):
    assert choose(FASTER, can_measure=False) == set()


@needs_native
@pytest.mark.parametrize(
    ("ending", "later"), [("kill -s SEGV $$", set()), ("exit 1", {WIDE[0]}), ("echo no JSON", {WIDE[0]})]
)
def test_a_crash_is_remembered_and_another_failure_is_not(choose, capfd, ending, later):
    assert choose(ending) == set()
    assert choose(FASTER) == later
    assert capfd.readouterr() == ("", "")


@needs_native
@pytest.mark.parametrize("damage", [b"", b"\x7fELF and no more"])
def test_a_damaged_file_is_never_loaded_but_compiled_again(choose, tmp_path, damage):
    choose(FASTER)
    (compiled,) = (tmp_path / "cache" / native.FOLDER).glob("*.so")
    content = compiled.read_bytes()
    compiled.write_bytes(damage)
    assert choose(NEVER, can_measure=False) == set()
    assert choose(NEVER) == {WIDE[0]}  # the verdict was about the file as it is again
    assert compiled.read_bytes() == content
    (verdict,) = compiled.parent.glob("*.json")
    verdict.write_text("{")
    assert choose(FASTER, can_measure=False) == set()
    assert choose(FASTER) == {WIDE[0]}


@needs_native
def test_a_library_that_cannot_be_loaded(tmp_path, monkeypatch):
    broken = tmp_path / "libdnnl.so.3"
    broken.write_text("not a library")
    monkeypatch.setattr(native, "core_count", jax.local_device_count)
    monkeypatch.setattr(native, "find_library", lambda: native.Library(broken, tmp_path))
    assert native.activate(tmp_path / "cache") == set()


@pytest.mark.parametrize(
    "missing", ["package", "compiler", "headers", "working compiler", "cache", "a device for each core"]
)
def test_what_is_missing_leaves_the_path_without_it(choose, tmp_path, monkeypatch, capfd, missing):
    options = {}
    monkeypatch.setattr(native, "compile_source", COMPILE_SOURCE)
    if missing == "package":
        monkeypatch.setattr(native, "PACKAGES", {"no-such-package": "/libdnnl.so.3"})
    elif missing == "compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
    elif missing == "headers":
        monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    elif missing == "working compiler":
        monkeypatch.setenv("CXX", "/bin/false")
    elif missing == "cache":
        (tmp_path / "file").write_text("")
        options = {"cache": tmp_path / "file"}
    else:
        monkeypatch.setattr(native, "core_count", lambda: jax.local_device_count() + 1)
    assert choose(FASTER, **options) == set()
    assert capfd.readouterr() == ("", "")


PROGRAM = """
from pathlib import Path
import sys
from hyperrecon_jax.models import native
print(sorted(native.activate(Path(sys.argv[1]))))
"""


@needs_native
@pytest.mark.slow
def test_two_processes_that_measure_at_once_agree(tmp_path):
    """The real trial, in both; and a third process that comes later."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(core_count())}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    outputs.append((subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout, ""))
    assert len(set(outputs)) == 1
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(path.suffix for path in (tmp_path / native.FOLDER).iterdir()) == [".json", ".so"]
    (verdict,) = (tmp_path / native.FOLDER).glob("*.json")
    gains = json.loads(verdict.read_text())["gains"]
    assert eval(outputs[0][0]) == sorted(name for name, values in gains.items() if native.is_faster(values))
    assert set(gains) >= {native.class_name(f, jnp.float32, c) for f in ("conv", "correlate", "norm") for c in (1, 32)}
