"""Native kernels for convolutions and norms on a CPU: C++ code that XLA calls, where its numbers are right and it is fast.

The extra `hyperrecon_jax[onednn]` installs oneDNN and its headers, for Linux on x86-64. `native_conv.cc` connects its
convolutions to XLA, and `native_norm.cc` is a norm with ReLU of our own. Both are compiled on first use by the C++
compiler of the machine, into the cache folder. Then a process of its own (`native_trial.py`) compares the numbers with
those of XLA and measures the speed. What it says, the verdict, is stored beside the compiled file. Nothing here can make a
command fail: without the package, a compiler, a cache that can be written or a verdict, `conv.py` and `norm.py` compute
what they computed before.

A program must not change between the start of a run and its resumption, so the verdict stays in the cache, and all
processes of a run use native kernels for the same operations. `activate` is called before anything is traced, by the
commands that train and measure. Programs that leave this machine (`export.py`) are made by processes that do not call it.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.runtime import distributed, files
from hyperrecon_jax.runtime.machine import core_count, private_folder

SOURCES = tuple(Path(__file__).with_name(name) for name in ("native_conv.cc", "native_norm.cc"))
FOLDER = "native"  # in the cache folder
PACKAGES = {"onednn-cpu-gomp": "/libdnnl.so.3", "onednn-devel-cpu-gomp": "/oneapi/dnnl/dnnl.hpp"}
FUNCTIONS = {
    "conv": "HyperreconConv",
    "correlate": "HyperreconCorrelate",
    "norm": "HyperreconNorm",
    "norm_gradient": "HyperreconNormGradient",  # it is tried and chosen with "norm", not alone
}
THIN = 8  # an image of fewer channels is a class of its own
OUTPUTS_STEP = 8  # the result of a convolution has a multiple of so many channels: with 20 oneDNN gains nothing
MAX_PADDED_CHANNELS = 16  # of the image, if the result has fewer than 8: zeros fill them up; with 32 XLA was twice as fast
NORM_ENTRIES = 64  # the channels of a norm divide this, and the entries of its image are a multiple of it
MIN_GAIN = 1.1  # of a class, the geometric mean of its cases; less is not worth another library
MIN_CASE_GAIN = 0.95  # of each case: none is slower, but for the error of the measurement
COMPILE_SECONDS, TRIAL_SECONDS = 300, 300  # at most
CRASHES = tuple(
    -getattr(signal, name) for name in ("SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT") if hasattr(signal, name)
)

_active: frozenset[str] = frozenset()  # the classes (`class_name`) that native kernels compute here


class Library(NamedTuple):
    """The files of the packages."""

    library: Path
    include: Path


class Verdict(NamedTuple):
    """What the trial said."""

    compiled: Path  # the file that was tried
    faster: list[str]  # the classes (`class_name`) where the native kernel is faster


def class_name(function: str, dtype: jnp.dtype, channels: int, *, is_padded: bool = False) -> str:
    """Name a class of operations that is measured, and chosen, as one.

    Args:
        function: a key of `FUNCTIONS` other than "norm_gradient".
        dtype: of the image.
        channels: of the image.
        is_padded: whether zeros fill up the channels of the result of a convolution.
    """
    kind = "thin" if channels < THIN else "wide"
    return f"{function} {jnp.dtype(dtype).name} {kind}{' padded' if is_padded else ''}"


def is_active(function: str, x: jax.Array, other: jax.Array) -> bool:
    """Whether a native kernel computes a convolution, "conv" or "correlate", of an image and its other argument."""
    channels, outputs = x.shape[-1], other.shape[-1]
    is_padded = function == "conv" and outputs < OUTPUTS_STEP and channels <= MAX_PADDED_CHANNELS
    is_tried = x.dtype == other.dtype and (outputs % OUTPUTS_STEP == 0 or is_padded)
    return is_tried and class_name(function, x.dtype, channels, is_padded=is_padded) in _active


def is_norm_active(x: jax.Array) -> bool:
    """Whether a native kernel computes the norm of an image `(h, w, c)`, and its gradient."""
    is_tried = x.size > 0 and NORM_ENTRIES % x.shape[-1] == 0 and x.size % NORM_ENTRIES == 0
    return is_tried and class_name("norm", x.dtype, x.shape[-1]) in _active


def active_classes() -> frozenset[str]:
    """Return the classes (`class_name`) that native kernels compute in this process."""
    return _active


@contextlib.contextmanager
def suspend() -> Iterator[None]:
    """A context in which programs are traced without native kernels, for comparisons."""
    global _active
    active = _active
    try:
        _active = frozenset()
        jax.clear_caches()  # of what was traced with it
        yield
    finally:
        _active = active
        jax.clear_caches()


def conv(x: jax.Array, kernel: jax.Array, *, precision: Any = None) -> jax.Array:
    """As `conv` of `conv._batched_pair`; on a CPU the precision of float32 is always full."""
    outputs = kernel.shape[-1]
    kernel = jnp.pad(kernel, [(0, 0)] * 4 + [(0, -outputs % OUTPUTS_STEP)])
    y = _call("conv", jax.ShapeDtypeStruct((*x.shape[:4], kernel.shape[-1]), x.dtype), x, kernel)
    return y[..., :outputs]


def correlate(x: jax.Array, ct: jax.Array, *, sides: tuple[int, int], precision: Any = None) -> jax.Array:
    """As `correlate` of `conv._batched_pair`."""
    shape = x.shape[0], *sides, x.shape[-1], ct.shape[-1]
    return _call("correlate", jax.ShapeDtypeStruct(shape, jnp.float32), x, ct)


def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`norm.instance_norm_relu`, the mean, and the inverse of the standard deviation."""
    channel = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    shapes = jax.ShapeDtypeStruct(x.shape, x.dtype), channel, channel
    return tuple(_call("norm", shapes, x, scale, bias, vmap_method="broadcast_all"))


def norm_gradient(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, inverse: jax.Array, ct: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The cotangents of `x`, `scale` and `bias`, from that of the first result of `norm` and from its other two."""
    channel = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    shapes = jax.ShapeDtypeStruct(x.shape, x.dtype), channel, channel
    return tuple(_call("norm_gradient", shapes, x, scale, bias, mean, inverse, ct, vmap_method="broadcast_all"))


def _call(function, shapes, *arrays, vmap_method=None):
    return jax.ffi.ffi_call(FUNCTIONS[function], shapes, vmap_method=vmap_method)(*arrays)


def activate(cache_folder: Path | None = None, *, can_measure: bool = True) -> frozenset[str]:
    """Use native kernels in this process where they are faster; call it before anything is traced.

    All processes of a run call it together, and use them for the same classes. They are used only where each core is a
    device, because a kernel keeps one thread busy.

    Args:
        cache_folder: None: `files.cache_folder()`.
        can_measure: compile and measure, for some 25 s, if the cache has no verdict.

    Returns:
        The classes (`class_name`).
    """
    global _active
    is_possible = jax.default_backend() == "cpu" and jax.local_device_count() == core_count()
    faster = _prepare(files.cache_folder(cache_folder), can_measure) if is_possible else []
    first, *others = distributed.gather_values(faster)
    _active = frozenset(first).intersection(*others)
    return _active


def _prepare(cache_folder: Path, can_measure: bool) -> list[str]:
    """Load the compiled file, and return the classes where it is faster; [] if anything fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, RuntimeError, AttributeError):
        library = find_library()
        folder = None if library is None else private_folder(cache_folder / FOLDER)
        if library is None or folder is None:
            return []
        verdict_file = folder / f"{_case_name(library)}.json"
        verdict = _read_verdict(verdict_file)
        compiler = find_compiler()
        if verdict is None and can_measure and compiler is not None:
            run_trial(library, compile_source(compiler, library, folder), verdict_file)
            verdict = _read_verdict(verdict_file)  # maybe that of another process, which was first
        if verdict is not None and verdict.faster:
            register(library, verdict.compiled)
            return verdict.faster
    return []


def find_library() -> Library | None:
    """Return the files of the packages; None if they are not installed."""
    paths = []
    for package, name in PACKAGES.items():
        try:
            distribution = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            return None
        matches = [distribution.locate_file(file) for file in distribution.files or () if str(file).endswith(name)]
        if not matches:
            return None
        paths.append(Path(str(matches[0])).resolve())
    library, header = paths
    return Library(library, header.parents[2]) if library.is_file() and header.is_file() else None


def find_compiler() -> str | None:
    """Return a C++ compiler: `$CXX`, or the first that is installed."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))), None)


def compile_source(compiler: str, library: Library, folder: Path) -> Path:
    """Compile `SOURCES` for this processor and return the file in `folder`, which appears there when it is complete.

    Its name is its digest.

    Raises:
        OSError, subprocess.SubprocessError: if that fails.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        result = Path(scratch) / "conv.so"
        flags = ["-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-w"]
        include = [f"-I{path}" for path in (library.include, jax.ffi.include_dir())]
        command = [compiler, *flags, *include, *map(str, SOURCES), str(library.library), "-o", str(result)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
        compiled = folder / f"{_digest(result)}.so"
        os.replace(result, compiled)
    return compiled


def run_trial(library: Library, compiled: Path, verdict_file: Path) -> None:
    """Compare and measure in a process of its own, and write the verdict, unless another process has written one.

    If that process crashes, the verdict is that nothing is faster. If it ends in another way, there is none.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": "", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-m", f"{__package__}.native_trial", str(library.library), str(compiled)]
    trial = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TRIAL_SECONDS)
    if trial.returncode not in (0, *CRASHES):
        return
    gains = {} if trial.returncode else json.loads(trial.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory(dir=verdict_file.parent) as scratch:
        result = Path(scratch) / verdict_file.name
        result.write_text(json.dumps({"compiled": compiled.name, "gains": gains}, indent=1))
        if _read_verdict(verdict_file) is None:
            os.replace(result, verdict_file)


@cache
def register(library: Library, compiled: Path) -> None:
    """Load the compiled file and give its functions to JAX.

    Raises:
        OSError, AttributeError: if it cannot be loaded.
        ValueError, RuntimeError: if JAX has them from another file.
    """
    ctypes.CDLL(str(library.library))  # the compiled file needs it, and the system would not find it
    loaded = ctypes.CDLL(str(compiled))
    for name in FUNCTIONS.values():
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(loaded, name)), platform="cpu")


def _read_verdict(verdict_file: Path) -> Verdict | None:
    """The verdict; None if there is none, or the compiled file that it is about is not as it was."""
    try:
        content = json.loads(verdict_file.read_text())
        compiled = verdict_file.parent / Path(content["compiled"]).name
        if _digest(compiled) != compiled.stem:
            return None
        return Verdict(compiled, sorted(name for name, gains in content["gains"].items() if is_faster(gains)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_faster(gains: Sequence[float]) -> bool:
    """Whether a native kernel computes a class, from the gains of its cases: XLA's time over the kernel's."""
    return statistics.geometric_mean(gains) >= MIN_GAIN and min(gains) >= MIN_CASE_GAIN


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _case_name(library: Library) -> str:
    """A name of everything that may decide which is faster: the code, the libraries and the processor."""
    cpu_lines: list[str] = []
    with contextlib.suppress(OSError):  # Linux alone has this file
        cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = sorted({line for line in cpu_lines if line.startswith(("model", "cpu family", "flags"))})
    python = [Path(__file__).with_name(name) for name in ("native.py", "native_trial.py", "conv.py", "norm.py")]
    code = [file.read_text() for file in (*SOURCES, *python)]
    status = library.library.stat()
    facts = code, cpu, jax.__version__, str(library.library), status.st_size, status.st_mtime_ns
    return hashlib.sha256(repr(facts).encode()).hexdigest()
