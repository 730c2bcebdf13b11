"""Training steps: HyperRecon of several sizes under both norms, and DHS against UHS."""

from collections.abc import Iterator

from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.runtime.mesh import device_mesh


def train(scale: Scale) -> Iterator[Candidate]:
    """Supervised steps (MAE and SSIM, UHS): each width of the hypernetwork, instance norm and the paper's batch norm."""
    mesh, samples = device_mesh(scale.batch), networks.images(scale)
    for norm in ("instance", "batch"):
        for width in scale.hyper_widths:
            task = networks.supervised(scale, hyper_width=width, norm=norm)
            yield networks.step(scale.label, f"d = {width}, {norm} norm", task, mesh, samples)


def dhs(scale: Scale) -> Iterator[Candidate]:
    """Steps of amortized optimization: UHS, and DHS that keeps a half and a quarter, by both of its paths.

    Under instance norm the samples that count are differentiated alone (on a CPU, where a sample at a time goes through the
    network, by a second forward pass); batch norm couples the samples, so that the others are masked. Either is compared
    with UHS under the same norm.
    """
    batch, samples = scale.batch, networks.images(scale)
    mesh = device_mesh(batch, batch // 2, batch // 4)  # the same for all
    for norm, path in (("instance", "alone"), ("batch", "masked")):
        for keep in (batch, batch // 2, batch // 4):
            task = networks.amortized(scale, norm=norm, keep=keep)
            name = "UHS" if keep == batch else f"DHS {keep} of {batch}, {path}"
            yield networks.step(f"{scale.label}, {norm} norm", name, task, mesh, samples)
