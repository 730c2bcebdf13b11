"""Scoring a landscape against the bare forward passes that it cannot do without."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import data
from hyperrecon_jax.benchmarks import floor, networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import apply_main, generate_weights
from hyperrecon_jax.runtime.mesh import REPLICATED, SHARDED, device_mesh, place


def candidates(scale: Scale) -> Iterator[Candidate]:
    """Scores of a batch of images at four lambdas on each device, against the network's forward pass as often.

    The forward pass has its weights already, and only a sum of its results is taken; the others generate the weights of
    each lambda, and compute the metrics that are reported by default.
    """
    mesh = device_mesh(0)
    setup, variables, example, _ = networks.amortized(scale)
    model, samples = setup.model, networks.images(scale)
    lams = np.asarray(hyperparams.uniform(jax.random.key(2), (4 * mesh.devices.size, 2)))
    y = scoring.observe_samples(setup.problem, jax.random.key(0), samples, jnp.arange(scale.batch))
    net_input = place(mesh, np.asarray(jax.vmap(setup.problem.to_net_input)(y)))
    theta = place(mesh, jax.jit(partial(generate_weights, model))(variables["params"], lams[0]))

    def bare(theta, lams, net_input):
        def at(lam):  # that the weights depend on lambda keeps the passes apart
            moved = jax.tree.map(lambda leaf: leaf + 1e-6 * lam[0], theta)
            return jnp.sum(jax.vmap(lambda y: apply_main(model, moved, {}, y))(net_input))

        return jax.lax.map(at, lams)

    spread = place(mesh, lams, SHARDED)
    passes = jax.shard_map(bare, mesh=mesh, in_specs=(REPLICATED, SHARDED, REPLICATED), out_specs=SHARDED, check_vma=False)
    compiled = jax.jit(passes).lower(theta, spread, net_input).compile()

    def forward():
        jax.block_until_ready(compiled(theta, spread, net_input))

    count = len(lams) * scale.batch
    case = f"{scale.size} px, {len(lams)} lambdas x {scale.batch}"
    work = floor.total(floor.forward(model, variables, example, terms=3), count)
    yield Candidate(case, "forward passes", forward, networks.peak(compiled), work, count)
    for name, metrics in (("J alone", ("data_consistency",)), ("all that is reported", scoring.REPORTED)):
        scorer = scoring.Scorer(model, setup.objective, setup.problem, names=metrics, chunk=scale.batch)

        def scored(scorer=scorer):
            scorer.run(variables, data.in_memory(samples), lams, jax.random.key(3))

        yield Candidate(case, f"scored: {name}", scored, None, work, count)
