"""Training steps: HyperRecon of several sizes under both norms, and DHS against UHS."""

from collections.abc import Iterator

from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.runtime.mesh import device_mesh


def train_candidates(scale: Scale) -> Iterator[Candidate]:
    """Supervised steps (MAE and SSIM, UHS): each width of the hypernetwork, instance norm and the paper's batch norm."""
    mesh, samples = device_mesh(scale.batch), networks.noise_images(scale)
    for norm in ("instance", "batch"):
        for width in scale.hyper_widths:
            task = networks.supervised_task(scale, hyper_width=width, norm=norm)
            yield from networks.step_candidates(scale.label, f"d = {width}, {norm} norm", task, mesh, samples)


def dhs_candidates(scale: Scale) -> Iterator[Candidate]:
    """Steps without reference images: UHS, and DHS that selects a half and a quarter of the batch, under both norms.

    Under instance norm only the selected samples are differentiated ("alone"). On a CPU, where samples go through the
    network one at a time, this takes a second forward pass. Batch norm couples the samples, so all are differentiated and
    the loss of the others is masked ("masked"). DHS is compared with UHS under the same norm.
    """
    batch, samples = scale.batch, networks.noise_images(scale)
    mesh = device_mesh(batch, batch // 2, batch // 4)  # the same for all candidates
    for norm, path in (("instance", "alone"), ("batch", "masked")):
        for keep in (batch, batch // 2, batch // 4):
            task = networks.amortized_task(scale, norm=norm, keep=keep)
            name = "UHS" if keep == batch else f"DHS {keep} of {batch}, {path}"
            yield networks.step_candidate(f"{scale.label}, {norm} norm", name, task, mesh, samples)
