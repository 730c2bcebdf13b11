"""The content of the explorer's page: reconstructions of a run, their scores, diverse ones, the best lambda, files.

No HTTP here; `server.py` sends the results. Any thread may call the functions. Those that may take seconds have an option
`job`: it learns how far they are, and if it is dropped they end by `Dropped` (`jobs.py`).
The scores are those of `bin.evaluate`.
"""

import functools
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hyperrecon_jax
from hyperrecon_jax.data import subset
from hyperrecon_jax.evaluation import choose, diverse, scoring
from hyperrecon_jax.explorer import measurement_band, programs
from hyperrecon_jax.explorer.jobs import NOBODY, Job
from hyperrecon_jax.explorer.open_volume import MeasuredSlice
from hyperrecon_jax.explorer.programs import METRICS
from hyperrecon_jax.explorer.run_description import (
    describe_acquisitions,
    describe_lambdas,
    describe_landscape,
    describe_outdated_scores,
    load_test_scores,
)
from hyperrecon_jax.explorer.volume_store import VolumeStore
from hyperrecon_jax.losses.metric_table import METRICS as METRIC_TABLE
from hyperrecon_jax.losses.metric_table import bound, page_facts
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import at_condition, network_at
from hyperrecon_jax.physics.acquisition import Acquisition, encode
from hyperrecon_jax.physics.net_input import zero_filled
from hyperrecon_jax.runs.load import load_run, read_config
from hyperrecon_jax.runs.slim_run import find_run
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.interrupts import BACKGROUND

NETWORK_CACHE_SIZE = 256  # lambdas, at an acquisition each, whose generated weights stay in memory
PROBLEM_CACHE_SIZE = 8  # problems (size of a slice, and mask) whose compiled programs stay in memory
MAX_DENSE_LAMBDAS = 441  # the most lambdas from which diverse ones are selected: 101 with one coefficient, 21 x 21 with two
ASCENT_STEPS = 40  # of the search for the best lambda
GOOD_PSNR_GAP = 0.5  # dB: a reconstruction is good if its PSNR is within this of the best
MAX_DIVERSE_BYTES = 2**29  # the most memory for the reconstructions from which diverse ones are selected
NOTICE = "For research. Not for diagnosis."


class Engine:
    """A run, as the page shows it.

    Args:
        run: the folder of a run with a hypernetwork, or of an ensemble.

    Raises:
        InputError: if there is no such run, or it has a single lambda, or its task is segmentation.
    """

    def __init__(self, run: Path):
        self.run = run = find_run(run)
        config = read_config(run)
        has_lambdas = config.model.hyper_width or config.lam.sampling == "ensemble"
        if config.task.name == "segmentation" or not has_lambdas:  # before the data are loaded, or even prepared
            raise InputError(
                f"{run} must hold a run that reconstructs for more than one lambda; this one has nothing to move."
            )
        trained = load_run(run)
        config = trained.config
        self.model, self.variables, self.steps = trained.model, trained.variables, trained.steps
        self.terms = tuple(config.loss.terms)
        self.volumes = VolumeStore(trained, read_config(run))
        samples = trained.dataset.test.samples
        self._test_images = scoring.digest(subset(samples, np.arange(samples.size)).identity)  # as `bin.evaluate` has them
        self._network = functools.lru_cache(NETWORK_CACHE_SIZE)(self._generate_network)
        self._programs = functools.lru_cache(PROBLEM_CACHE_SIZE)(functools.partial(programs.compile_programs, self.model))
        self._band = functools.lru_cache(PROBLEM_CACHE_SIZE)(measurement_band.compile_band)
        self._unit_noise_level = functools.lru_cache(NETWORK_CACHE_SIZE)(self._simulate_noise_level)
        self._network_at = jax.jit(functools.partial(network_at, self.model))
        self._ascend = jax.jit(functools.partial(programs.ascend, self.model))

    def describe(self, tab: str | None = None, linked: str = "") -> dict[str, Any]:
        """The run for the page: names, the meaning of each lambda, the volumes, the landscape if the run was evaluated.

        `tab` and `linked` say which volumes, as in `VolumeStore.describe_all`.
        """
        return {
            "name": self.run.resolve().name,
            "folder": str(self.run),
            "command": adapt(f"hyperrecon explore --run {shlex.quote(str(self.run))}"),
            "steps": self.steps,
            "task": self.volumes.describe_task(),
            "lams": describe_lambdas(self.terms),
            "metrics": METRICS,
            "best_metrics": METRICS,
            "metric_facts": page_facts((*METRICS, "data_consistency")),
            "volumes": self.volumes.describe_all(tab, linked),
            "version": hyperrecon_jax.__version__,
            "notice": NOTICE,
            "evaluation": describe_landscape(self._load_test_scores(), len(self.terms) - 1),
            "acquisitions": describe_acquisitions(self.volumes.ranges),
        }

    @property
    def evaluation_note(self) -> str:
        """Why the page has no landscape although the folder of the run has scores; "" otherwise."""
        return describe_outdated_scores(self.run, self._load_test_scores())

    def _load_test_scores(self) -> Any:
        return load_test_scores(self.run, steps=self.steps, test_images=self._test_images)

    def compile_ahead(self) -> threading.Thread:
        """Compile the programs of the page: that of a reconstruction at once, the others in the thread that is returned."""
        self.reconstruct("test", 0, [0.5] * (len(self.terms) - 1))
        volume, measured = self.volumes.measure("test", 0)

        def compile_others() -> None:
            lams = self._start_lambdas()[:1].repeat(programs.LAMBDA_BATCH, 0)
            self._programs(volume.problem).reconstruct_batch(self.variables, lams, measured)
            self._ascend(self.variables, choose.start_ascent(jnp.asarray(lams[0])), 0, measured.net_input, measured.x)

        thread = threading.Thread(target=compile_others, name=BACKGROUND, daemon=True)
        thread.start()
        return thread

    def input_and_reference(
        self, volume: str, index: int, *, acquisition: str | None = None, job: Job = NOBODY
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The magnitude of the network's input and, if it is known, the reference image.

        Args:
            volume, index: which slice.
            acquisition: how it is measured, in words (`VolumeStore.find_acquisition`).

        Returns:
            `(1 or 2, h, w)`, and for the page whether the reference is known, the scores of the input, and what noise
            alone gives (`_describe_noise`).
        """
        _, measured = self.volumes.measure(volume, index, acquisition, job=job)
        image = zero_filled(measured.net_input)
        planes = [image] if measured.x is None else [image, measured.x]
        metrics = {} if measured.x is None else programs.score_image(image, measured.x)
        noise = self._describe_noise(volume, measured, acquisition)
        info = {"truth": measured.x is not None, "metrics": _to_json(metrics), "noise": noise}
        return np.stack([np.asarray(plane)[..., 0] for plane in planes]), info

    def reconstruct(
        self, volume: str, index: int, lam: Sequence[float], *, acquisition: str | None = None, job: Job = NOBODY
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The reconstruction of a slice at a lambda; `acquisition` as in `input_and_reference`.

        Returns:
            `(h, w)`, and for the page the lambda, the scores (J always, the others if the reference is known) and the time.
        """
        lam = self.check_lambda(lam)
        opened, measured = self.volumes.measure(volume, index, acquisition, job=job)
        start = time.perf_counter()
        network = self._network(lam, self.volumes.find_acquisition(volume, acquisition))
        x_hat, metrics = self._programs(opened.problem).reconstruct(*network, measured)
        image = np.asarray(x_hat)[..., 0]
        info = {"lam": lam, "metrics": _to_json(metrics), "milliseconds": 1000 * (time.perf_counter() - start)}
        return image, info

    def contradiction(
        self, volume: str, index: int, lam: Sequence[float], *, acquisition: str | None = None, job: Job = NOBODY
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """What of the reconstruction of a slice the measurement contradicts; the arguments are those of `reconstruct`.

        Returns:
            `(h, w)` by `measurement_band.contradiction`, and for the page the values from which it is shown and at which it
            has its full colour.
        """
        x_hat, _ = self.reconstruct(volume, index, lam, acquisition=acquisition, job=job)
        opened, measured = self.volumes.measure(volume, index, acquisition, job=job)
        plane = np.asarray(self._band(opened.problem).contradiction(jnp.asarray(x_hat)[..., None], measured.y))[..., 0]
        noise, level = self.volumes.find_noise(volume, acquisition), measurement_band.LEAST_SHOWN
        if noise is not None and noise.sigma:
            level = max(level, noise.sigma * self._unit_noise_level(volume, index, acquisition))
        return plane, {"low": level, "high": 2 * max(level, 0.05), "is_noise_known": noise is not None}

    def _simulate_noise_level(self, volume: str, index: int, acquisition: str | None) -> float:
        """`measurement_band.unit_noise_level` of a slice."""
        opened, measured = self.volumes.measure(volume, index, acquisition)
        image = zero_filled(measured.net_input)
        return float(self._band(opened.problem).unit_noise_level(image, measured.y))

    def _describe_noise(self, volume: str, measured: MeasuredSlice, acquisition: str | None) -> dict[str, Any] | None:
        """J from noise alone: its mean and standard deviation, and whether the noise is an estimate; None if not known."""
        noise = self.volumes.find_noise(volume, acquisition)
        if noise is None:
            return None
        j, spread = measurement_band.expected_j(noise, measured.y, measured.x)
        return {"j": j, "spread": spread, "estimate": noise.is_estimate}

    def select_diverse(
        self,
        volume: str,
        index: int,
        count: int,
        lams: np.ndarray | None = None,
        *,
        acquisition: str | None = None,
        job: Job = NOBODY,
    ) -> tuple[list[list[float]], str]:
        """The lambdas of good reconstructions of a slice that differ most (Sec. V-H), and what "good" means, in words.

        With a reference, reconstructions above the 90th percentile of PSNR are good, and also those within half a dB of the
        best: with two losses the best tenth is a single short interval of lambda. Without a reference, the half that is
        nearest to the measurement is good.

        Args:
            volume, index: which slice.
            count: number of lambdas.
            lams: `(l, K-1)`, the candidates; None: a dense set.
            acquisition: as in `input_and_reference`.
        """
        if not 2 <= count <= 24:
            raise InputError(f"The number of reconstructions must be in [2, 24], got {count}.")
        opened, measured = self.volumes.measure(volume, index, acquisition, job=job)
        if lams is None:
            lams = self._dense_lambdas(zero_filled(measured.net_input).nbytes)
        lams = np.asarray(lams, np.float32)
        program = self._programs(opened.problem).reconstruct_batch
        variables, words = self._variables(volume, acquisition), f"Reconstructions at {len(lams)} lambdas"
        x_hat, metrics = programs.reconstruct_all(program, variables, lams, measured, job=job, words=words)
        has_reference = measured.x is not None
        if has_reference:
            psnr = metrics["psnr"]
            good = np.union1d(diverse.select_good(psnr), np.flatnonzero(psnr >= psnr.max() - GOOD_PSNR_GAP))
            condition = f"PSNR among the best tenth, or within {GOOD_PSNR_GAP:g} dB of the best,"
        else:
            good = diverse.select_good(-metrics["data_consistency"], percentile=50)
            condition = "The half nearest the measurement"
        chosen = good[diverse.diverse_set(x_hat[good], min(count, len(good)))]
        criterion = f"{condition} of {len(lams)} lambdas; of these, the {len(chosen)} that differ most."
        return [_round_lambda(lam) for lam in lams[chosen]], criterion

    def find_best(
        self, volume: str, index: int, metric: str, *, acquisition: str | None = None, job: Job = NOBODY
    ) -> tuple[list[float], float]:
        """The lambda with the best score of a slice, by gradient ascent through the hypernetwork, and the score.

        The steps are those of `choose.best_lambda`, in a program of their own, so that the job can be dropped between them.
        """
        if metric not in METRICS:
            raise InputError(f"The metric must be one of {', '.join(METRICS)}, got {metric!r}.")
        opened, measured = self.volumes.measure(volume, index, acquisition, job=job)
        if measured.x is None:
            raise InputError("The best lambda needs the truth, which is not known of this volume.")
        variables, starts = self._variables(volume, acquisition), self._start_lambdas()
        program, words = self._programs(opened.problem).reconstruct_batch, f"Scores at {len(starts)} lambdas"
        _, metrics = programs.reconstruct_all(program, variables, starts, measured, job=job, words=words)
        sign = METRIC_TABLE[metric].sign
        ascent = choose.start_ascent(choose.best_start(starts, sign * metrics[metric]))
        for step in range(ASCENT_STEPS + 1):
            job.report("Climbing to the best lambda", step / (ASCENT_STEPS + 1))
            ascent = jax.block_until_ready(
                self._ascend(variables, ascent, METRICS.index(metric), measured.net_input, measured.x)
            )
        return _round_lambda(ascent.lam), sign * float(ascent.value)

    def check_lambda(self, lam: Sequence[float]) -> tuple[float, ...]:
        """A lambda of the page, rounded; raises `InputError` if it is no lambda of this run."""
        return tuple(_round_lambda(hyperparams.check(np.asarray(lam), len(self.terms))))

    def _dense_lambdas(self, image_bytes: int) -> np.ndarray:
        """A dense set of lambdas `(l, K-1)`; their reconstructions fit in `MAX_DIVERSE_BYTES`."""
        if self.model.members:
            return np.array(self.model.members, np.float32)
        count = len(self.terms) - 1
        most = min(101 if count == 1 else MAX_DENSE_LAMBDAS, MAX_DIVERSE_BYTES // image_bytes)
        return hyperparams.product([np.linspace(0, 1, max(2, int(most ** (1 / count) + 1e-9)))] * count)

    def _start_lambdas(self) -> np.ndarray:
        """The lambdas `(s, K-1)` from which the search for the best lambda starts."""
        if self.model.members:
            return np.array(self.model.members, np.float32)
        count = len(self.terms) - 1
        return hyperparams.product([np.linspace(0, 1, {1: 11, 2: 5}.get(count, 2))] * count)

    def _variables(self, volume: str, acquisition: str | None) -> Any:
        """The variables of the model for the acquisition of a volume."""
        return self._variables_at(self.volumes.find_acquisition(volume, acquisition))

    def _variables_at(self, acquisition: Acquisition | None) -> Any:
        """The variables of the model for an acquisition; of a kind of mask that it does not know, for its first kind."""
        ranges = self.volumes.ranges
        if ranges is None or acquisition is None or not self.model.num_conditions:
            return self.variables
        if acquisition.mask not in ranges.masks:
            acquisition = acquisition._replace(mask=ranges.masks[0])
        return at_condition(self.variables, encode(ranges, acquisition))

    def _generate_network(self, lam: tuple[float, ...], acquisition: Acquisition | None):
        """The weights and running statistics of the main network at a lambda and an acquisition."""
        return self._network_at(self._variables_at(acquisition), jnp.asarray(lam))


def _round_lambda(lam: Any) -> list[float]:
    """A lambda with four digits: finer differences are invisible, and equal lambdas share their weights."""
    return [round(float(v), 4) for v in lam]


def _to_json(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Scores as JSON has them: the limit of an infinite PSNR, as in all means, and None for NaN."""
    bounded = {name: float(bound(name, value)) for name, value in metrics.items()}
    return {name: value if np.isfinite(value) else None for name, value in bounded.items()}
