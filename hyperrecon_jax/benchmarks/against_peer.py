"""Compare the library's training step with the same step in PyTorch (`peer.py`).

Both start from the same weights, images and lambdas, and must reach the same losses. Both run as their users run them: the
library with a device for each core, PyTorch with its default number of threads. Calls alternate, and before each call there
is a pause (`timing.PAUSE`) in which the threads of the other stop spinning. On a busy machine PyTorch loses more than the
library, because its threads wait for each other in every operation.

On a CPU PyTorch is timed twice: in this process, where `machine.retain_freed_memory` also helps PyTorch, and in a process
of its own, which is how its users run it.
"""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.models import native
from hyperrecon_jax.runtime.errors import InputError

# of the losses before and after a step; bfloat16 has 8 bits, and batch norm sums their errors over the batch
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 3e-2}
FLOAT32_VARIANTS: dict[str, dict[str, Any]] = {"PyTorch": {}}
CPU_VARIANTS: dict[str, dict[str, Any]] = FLOAT32_VARIANTS | {"PyTorch, bfloat16": {"bfloat16": True}}
GPU_VARIANTS: dict[str, dict[str, Any]] = CPU_VARIANTS | {
    "PyTorch, compiled": {"compiled": True},
    "PyTorch, bfloat16, compiled": {"compiled": True, "bfloat16": True},
}


def candidates(scale: Scale) -> Iterator[Candidate]:
    """Steps of the library ("ours", the reference) and of PyTorch: the U-Net under both norms, and the unrolled network.

    Both also run in bfloat16 on a GPU, and on a CPU where native kernels compute ours. On a GPU PyTorch also
    runs compiled, and products of float32 use TF32. With less than float32 the losses are compared with a larger tolerance.

    Raises:
        InputError: without PyTorch, or if it does not see the GPU that JAX uses.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("The suite `peer` needs PyTorch, which is not installed: pip install torch.")
    import torch

    on_cpu = jax.default_backend() == "cpu"
    if on_cpu == torch.cuda.is_available():
        raise InputError("The suite `peer` needs JAX and PyTorch on the same hardware, got one on a CPU and one on a GPU.")

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for make_task, norm, label in (
        (networks.supervised_task, "instance", "instance norm"),
        (networks.supervised_task, "batch", "batch norm"),
        (networks.supervised_unrolled_task, "instance", "unrolled"),
    ):
        make_task = partial(make_task, scale, hyper_width=scale.hyper_widths[-1], norm=norm)
        yield from _task_candidates(scale, make_task, f"{scale.label}, {label}", on_cpu=on_cpu)


def _task_candidates(
    scale: Scale, make_task: Callable[..., networks.Task], case: str, *, on_cpu: bool
) -> Iterator[Candidate]:
    from hyperrecon_jax.benchmarks.peer import make_step, start_process

    samples, mesh = networks.noise_images(scale), networks.comparison_mesh(scale.batch)
    task = make_task()
    yield from networks.step_candidates(case, "ours", task, mesh, samples)
    uses_bfloat16 = not on_cpu or any("bfloat16" in name for name in native.active_classes())
    if uses_bfloat16:
        yield networks.step_candidate(case, "ours, bfloat16", make_task(precision="bfloat16"), mesh, samples)
    settings = {
        "params": jax.tree.map(np.asarray, task.variables["params"]),
        "mask": np.asarray(task.mask),
        "images": np.asarray(samples.image),
        "lams": np.asarray(task.setup.sample_lam(jax.random.key(0), (scale.batch, 1))),
        "norm": task.setup.model.main.norm,
        "learning_rate": networks.LEARNING_RATE,
    }
    variants = (CPU_VARIANTS if uses_bfloat16 else FLOAT32_VARIANTS) if on_cpu else GPU_VARIANTS
    steps: dict[str, Callable[[], float]] = {name: make_step(**settings, **options) for name, options in variants.items()}
    if on_cpu:
        steps["PyTorch, own process"] = start_process(**settings)
    for name, run in steps.items():
        dtype = "bfloat16" if variants.get(name, {}).get("bfloat16") else "float32"
        tolerance = TOLERANCES["tf32" if dtype == "float32" and not on_cpu else dtype]
        work = networks.step_work(task)._replace(dtype=dtype)
        in_this_process = name in variants
        yield Candidate(
            case, name, run, work=work, images=scale.batch, tolerance=tolerance, in_this_process=in_this_process
        )
