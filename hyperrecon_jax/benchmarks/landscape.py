"""Score a landscape, and compare the time with that of the network's forward passes alone."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import data
from hyperrecon_jax.benchmarks import floor, networks
from hyperrecon_jax.benchmarks.networks import Scale, Task
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import Model, apply_main, generate_weights
from hyperrecon_jax.physics.net_input import NetInput
from hyperrecon_jax.runtime.mesh import REPLICATED, SHARDED, device_mesh, place

Tree = Any


def candidates(scale: Scale) -> Iterator[Candidate]:
    """Score a batch of images at four lambdas for each device; the reference makes as many forward passes.

    The networks are U-Nets with each width of the hypernetwork, and an unrolled one. The forward passes start from ready
    weights and return only a sum. The other candidates generate the weights of each lambda and compute metrics: J alone, or
    the metrics that are reported by default.
    """
    for hyper_width in scale.hyper_widths:
        yield from _candidates(scale, f"d = {hyper_width}", networks.amortized_task(scale, hyper_width=hyper_width))
    yield from _candidates(scale, "unrolled", networks.unrolled_task(scale))


def _candidates(scale: Scale, label: str, task: Task) -> Iterator[Candidate]:
    mesh = device_mesh(0)
    setup, variables, example, _ = task
    model, samples = setup.model, networks.noise_images(scale)
    lams = np.asarray(hyperparams.uniform(jax.random.key(2), (4 * mesh.devices.size, 2)))
    net_inputs = scoring.make_net_inputs(setup.problem, jax.random.key(0), samples, jnp.arange(scale.batch))
    net_inputs = place(mesh, jax.tree.map(np.asarray, net_inputs))
    theta = place(mesh, jax.jit(partial(generate_weights, model))(variables["params"], lams[0]))
    sharded_lams = place(mesh, lams, SHARDED)
    specs = (REPLICATED, SHARDED, REPLICATED)
    passes = jax.shard_map(partial(_forward_sums, model), mesh=mesh, in_specs=specs, out_specs=SHARDED, check_vma=False)
    compiled = jax.jit(passes).lower(theta, sharded_lams, net_inputs).compile()

    def run_forward():
        jax.block_until_ready(compiled(theta, sharded_lams, net_inputs))

    count = len(lams) * scale.batch
    case = f"{scale.size} px, {label}, {len(lams)} lambdas x {scale.batch}"
    work = floor.repeat_work(floor.forward_work(model, variables, example, terms=3), count)
    yield Candidate(case, "forward passes", run_forward, networks.peak_bytes(compiled), work, count)
    for name, metrics in (("J alone", ("data_consistency",)), ("all that is reported", scoring.REPORTED)):
        scorer = scoring.Scorer(model, setup.objective, setup.problem, names=metrics, chunk=scale.batch)

        def run_scorer(scorer=scorer):
            scorer.run(variables, data.in_memory(samples), lams, jax.random.key(3))

        yield Candidate(case, f"scored: {name}", run_scorer, None, work, count)


def _forward_sums(model: Model, theta: Tree, lams: jax.Array, net_inputs: NetInput) -> jax.Array:
    """Return, for each lambda, the sum of the network's outputs over all inputs."""

    def sum_outputs(lam):  # the weights depend on lambda, so that XLA cannot merge the passes
        shifted = jax.tree.map(lambda leaf: leaf + 1e-6 * lam[0], theta)
        return jnp.sum(jax.vmap(lambda net_input: apply_main(model, shifted, {}, net_input))(net_inputs))

    return jax.lax.map(sum_outputs, lams)
