"""Our training step beside the same in PyTorch (`peer.py`): from the same weights, images and lambdas to the same losses.

Both are what their users get: ours a device for each core, PyTorch its own number of threads. They alternate, and before
each call there is a pause (`timing.PAUSE`) in which the threads of the other stop spinning. On a machine that is busy with
other things PyTorch's threads, which wait for each other in every operation, lose more than ours.

On a CPU PyTorch is there twice: in this process, where it gains by what `machine.retain_freed_memory` sets for ours, and
in a process of its own, which is how it runs for those who use it.
"""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.runtime.errors import InputError

TOLERANCE = 1e-4  # of the losses before and after a step, in float32 on a CPU
ON_GPU: dict[str, dict[str, Any]] = {
    "PyTorch": {},
    "PyTorch, compiled": {"compiled": True},
    "PyTorch, bfloat16": {"half": True},
    "PyTorch, bfloat16, compiled": {"compiled": True, "half": True},
}


def candidates(scale: Scale) -> Iterator[Candidate]:
    """Ours, the reference, and PyTorch, under both norms; on a GPU both in bfloat16, too, and PyTorch also compiled.

    On a GPU both use TF32 for float32 products, and the comparison of losses is as coarse.

    Raises:
        InputError: without PyTorch, or if it does not see the GPU that JAX uses.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("The suite `peer` needs PyTorch, which is not installed: pip install torch.")
    import torch

    on_cpu = jax.default_backend() == "cpu"
    if on_cpu == torch.cuda.is_available():
        raise InputError("The suite `peer` needs JAX and PyTorch on the same hardware, got one on a CPU and one on a GPU.")
    from hyperrecon_jax.benchmarks.peer import make_step, own_process

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    tolerance = TOLERANCE if on_cpu else 100 * TOLERANCE
    variants: dict[str, dict[str, Any]] = {"PyTorch": {}} if on_cpu else ON_GPU
    samples = networks.images(scale)
    for norm in ("instance", "batch"):
        case = f"{scale.label}, {norm} norm"
        task = networks.supervised(scale, hyper_width=scale.hyper_widths[-1], norm=norm)
        mesh = networks.mesh_of_one(scale.batch)
        yield networks.step(case, "ours", task, mesh, samples)
        if not on_cpu:
            short = networks.supervised(scale, hyper_width=scale.hyper_widths[-1], norm=norm, precision="bfloat16")
            yield networks.step(case, "ours, bfloat16", short, mesh, samples)
        lams = np.asarray(task.setup.sample_lam(jax.random.key(0), (scale.batch, 1)))
        params = jax.tree.map(np.asarray, task.variables["params"])
        build = {"params": params, "mask": np.asarray(task.mask), "images": np.asarray(samples.image), "lams": lams}
        build |= {"norm": norm, "rate": networks.RATE}
        peers: dict[str, Callable[[], float]] = {name: make_step(**build, **options) for name, options in variants.items()}
        if on_cpu:
            peers["PyTorch, own process"] = own_process(**build)
        for name, run in peers.items():
            work = networks.step_work(task)._replace(dtype="bfloat16" if variants.get(name, {}).get("half") else "float32")
            yield Candidate(case, name, run, work=work, images=scale.batch, tolerance=tolerance)
