"""What the explorer computes of a run: reconstructions, their scores, diverse ones, the best lambda. No HTTP.

Anything here may be called from any thread; reconstructions are made one at a time. Scores are those of `evaluate`.
"""

import functools
import io
import re
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.commands.evaluate import SCORES
from hyperrecon_jax.data import volumes
from hyperrecon_jax.evaluation import choose, diverse, scores, scoring
from hyperrecon_jax.explorer.shelf import Shelf
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import Model, apply_main, network_at, reconstruct
from hyperrecon_jax.physics import operators
from hyperrecon_jax.physics.problem import Problem
from hyperrecon_jax.runs import report
from hyperrecon_jax.runs.experiment import load
from hyperrecon_jax.runs.names import term_name
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

METRICS = ("psnr", "ssim", "mae", "hfen")
SIGN = {name: 1 if name in scores.HIGHER else -1 for name in METRICS}
HINTS = {
    "mae": "smoother",
    "mse": "smoother",
    "ssim": "sharper",
    "ssim_zero_padded": "sharper",
    "total_variation": "flatter",
    "wavelet_l1": "sparser",
    "data_consistency": "closer to the measurement",
}
NETWORKS = 256  # lambdas whose weights are kept
PROBLEMS = 8  # sizes of slices, and masks, whose programs are kept
DENSE = 441  # lambdas at most from which the diverse and the best ones are chosen: 101 of one, 21 x 21 of two
NEAR = 0.5  # dB from the best PSNR, within which a reconstruction is good
AT_ONCE = 16  # lambdas in one call
BYTES = 2**29  # of the reconstructions among which the diverse ones are chosen
FORMATS = ("png", "npy", "nii")


class Engine:
    """A run to look through.

    Args:
        run: the folder of a run with a hypernetwork, or of an ensemble.

    Raises:
        InputError: if there is no such run, or it has one lambda or segments.
    """

    def __init__(self, run: Path):
        self.run = run
        experiment, state = load(run)
        config = experiment.config
        self.model, self.variables = experiment.setup.model, report.variables(state)
        self.steps = int(state.step)
        if config.task.name == "segmentation" or not (self.model.hyper or self.model.members):
            raise InputError(
                f"{run} must hold a run that reconstructs for more than one lambda; this one has nothing to move."
            )
        self.terms = tuple(config.loss.terms)
        self.shelf = Shelf(experiment)
        self._test_images = scoring.digest(experiment.dataset.test.samples.identity)
        self._lock = threading.Lock()
        self._network = functools.lru_cache(NETWORKS)(self._generate)
        self._compiled = functools.lru_cache(PROBLEMS)(functools.partial(_compile, self.model))
        self._at = jax.jit(functools.partial(network_at, self.model))
        self._climb = jax.jit(functools.partial(_climb, self.model))

    def about(self) -> dict[str, Any]:
        """The run, for the page: names, the ends of each lambda, the volumes, the landscape if it was evaluated."""
        return {
            "name": self.run.resolve().name,
            "folder": str(self.run),
            "command": adapt(f"hyperrecon explore --run {self.run}"),
            "steps": self.steps,
            "task": self.shelf.task(),
            "lams": [self._ends(k) for k in range(len(self.terms) - 1)],
            "metrics": METRICS,
            "best_metrics": METRICS,
            "volumes": self.shelf.listed(),
            "evaluation": self._evaluation(),
            "writable": True,
        }

    def _ends(self, k: int) -> dict[str, str]:
        """What lambda_k trades, as `hyperparams.coefficients` has it: with two terms 0 is the first, with more 1 is."""
        two = len(self.terms) == 2
        low, high = (self.terms[:1], self.terms[1:]) if two else (self.terms[k + 1 :], self.terms[k : k + 1])
        return {
            "low": " + ".join(map(term_name, low)),
            "high": " + ".join(map(term_name, high)),
            "low_hint": HINTS.get(low[0], "") if len(low) == 1 else "",
            "high_hint": HINTS.get(high[0], ""),
        }

    def _evaluation(self) -> dict[str, Any] | None:
        """The mean over the test images at each lambda of the grid, if `bin.evaluate` was run on this state and on them."""
        try:
            ds = scores.load(self.run / "evaluation" / SCORES)
        except InputError:
            return None
        if (ds.attrs.get("steps"), ds.attrs.get("test_images")) != (self.steps, self._test_images):
            return None
        lams = [f"lam_{k}" for k in range(1, len(self.terms))]
        means = {name: ds[name].mean("image").transpose(*lams).values.ravel() for name in METRICS if name in ds}
        values = {name: mean.astype(float).tolist() for name, mean in means.items() if np.isfinite(mean).all()}
        return {"axes": [ds[lam].values.tolist() for lam in lams], "values": values} if values else None

    def warm(self) -> None:
        """Compile what the page asks for first; the rest without holding up who asks meanwhile."""
        self.reconstruct("test", 0, [0.5] * (len(self.terms) - 1))
        shown, measured = self.shelf.look("test", 0)

        def rest() -> None:
            self._compiled(shown.problem).many(self.variables, self._starts()[:1].repeat(AT_ONCE, 0), measured)
            self._climb(self.variables, self._starts(), 0, measured.net_input, measured.x)

        threading.Thread(target=rest, daemon=True).start()

    # What a slice becomes. Only the quick ones exclude each other: a long one does not stop a hand that drags.

    def slice(self, volume: str, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The magnitude of the network's input and, if it is known, the truth, `(1 or 2, h, w)`; the input's scores."""
        _, measured = self.shelf.look(volume, index)
        image = operators.magnitude(measured.net_input)
        planes = [image] if measured.x is None else [image, measured.x]
        found = {} if measured.x is None else _compare(image, measured.x)
        known = {"truth": measured.x is not None, "metrics": _numbers(found)}
        return np.stack([np.asarray(plane)[..., 0] for plane in planes]), known

    def reconstruct(self, volume: str, index: int, lam: Sequence[float]) -> tuple[np.ndarray, dict[str, Any]]:
        """The reconstruction `(h, w)`, its scores (J always, the others if the truth is known), the time it took."""
        lam = self._lambda(lam)
        start = time.perf_counter()
        with self._lock:
            shown, measured = self.shelf.look(volume, index)
            x_hat, found = self._compiled(shown.problem).one(*self._network(lam), measured)
            image = np.asarray(x_hat)[..., 0]
        known = {"lam": lam, "metrics": _numbers(found), "milliseconds": 1000 * (time.perf_counter() - start)}
        return image, known

    def diverse(self, volume: str, index: int, count: int, lams: np.ndarray | None = None) -> tuple[list[list[float]], str]:
        """Lambdas of good reconstructions of a slice that differ most (Sec. V-H), and what good means.

        Good are, among a dense set of lambdas, those above the 90th percentile of PSNR, and those within half a dB of the
        best, since with two losses the best tenth is one short stretch of lambda. Where the truth is not known, it is the
        half that is nearest the measurement. `lams`, `(l, K-1)`, are chosen among; none given: a dense set.
        """
        if not 2 <= count <= 24:
            raise InputError(f"The number of reconstructions must be in [2, 24], got {count}.")
        shown, measured = self.shelf.look(volume, index)
        lams = self._dense(measured.net_input.nbytes // 2) if lams is None else np.asarray(lams, np.float32)
        many, parts = self._compiled(shown.problem).many, []
        for start in range(0, len(lams), AT_ONCE):  # of one size, so that it is compiled once
            here = lams[np.minimum(np.arange(start, start + AT_ONCE), len(lams) - 1)]
            parts.append(jax.device_get(many(self.variables, here, measured)))
        x_hat = np.concatenate([part for part, _ in parts])[: len(lams)]
        known = measured.x is not None
        quality = np.concatenate([part["psnr" if known else "data_consistency"] for _, part in parts])[: len(lams)]
        if known:
            good = np.union1d(diverse.good(quality), np.flatnonzero(quality >= quality.max() - NEAR))
        else:
            good = diverse.good(-quality, percentile=50)
        chosen = good[diverse.diverse_set(x_hat[good], min(count, len(good)))]
        among = (
            f"PSNR among the best tenth, or within {NEAR:g} dB of the best,"
            if known
            else "The half nearest the measurement"
        )
        criterion = f"{among} of {len(lams)} lambdas; of these, the {len(chosen)} that differ most."
        return [_plain(lam) for lam in lams[chosen]], criterion

    def best(self, volume: str, index: int, metric: str) -> tuple[list[float], float]:
        """The lambda with the best score of a slice whose truth is known, by gradient through the hypernetwork."""
        if metric not in METRICS:
            raise InputError(f"The metric must be one of {', '.join(METRICS)}, got {metric!r}.")
        _, measured = self.shelf.look(volume, index)
        if measured.x is None:
            raise InputError("The best lambda needs the truth, which is not known of this volume.")
        lam, value = self._climb(self.variables, self._starts(), METRICS.index(metric), measured.net_input, measured.x)
        return _plain(lam), SIGN[metric] * float(value)

    def export(
        self,
        volume: str,
        index: int,
        lams: Sequence[Sequence[float]],
        format: str,
        *,
        window: float = 1.0,
        level: float = 0.5,
    ) -> tuple[str, bytes]:
        """What is shown as a file: its name and content; of several lambdas a zip.

        Args:
            volume, index: which slice.
            lams: at which lambdas.
            format: of `FORMATS`; "npy" is an archive of NumPy with the image and its metadata.
            window, level: of a PNG, the width and the centre of the gray scale.
        """
        if format not in FORMATS:
            raise InputError(f"The format must be one of {', '.join(FORMATS)}, got {format!r}.")
        if not lams:
            raise InputError("There must be a lambda to export, got none.")
        different = dict.fromkeys(self._lambda(lam) for lam in lams)
        files = [self._file(volume, index, lam, format, window, level) for lam in different]
        if len(files) == 1:
            return files[0]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, one in files:
                archive.writestr(name, one)
        return f"{Path(files[0][0]).name.partition('_lambda')[0]}.zip", content.getvalue()

    def _file(self, volume, index, lam, format, window, level):
        image, known = self.reconstruct(volume, index, lam)
        shown = self.shelf.find(volume, index)
        metadata = {
            "software": "hyperrecon_jax",
            "run": self.run.resolve().name,
            "task": self.shelf.task(),
            "loss": ", ".join(self.terms),
            "lambda": ", ".join(f"{v:g}" for v in known["lam"]),
            "volume": shown.name,
            "slice": str(index),
            **{name: f"{value:.6g}" for name, value in known["metrics"].items() if value is not None},
        }
        stem = re.sub(r"\W+", "_", shown.name.partition(".")[0]).strip("_") or "volume"
        name = f"{stem}_{index}_lambda_{'_'.join(f'{v:g}' for v in known['lam'])}"
        if format == "png":
            return f"{name}.png", volumes.png(volumes.crop(shown.file, image), window=window, level=level, text=metadata)
        if format == "npy":
            return f"{name}.npz", volumes.npz(volumes.crop(shown.file, image), metadata)
        return f"{name}.nii.gz", volumes.nifti(shown.file, index, image, metadata)

    # Compiled.

    def _lambda(self, lam: Sequence[float]) -> tuple[float, ...]:
        return tuple(_plain(hyperparams.check(np.asarray(lam), len(self.terms))))

    def _dense(self, size: int) -> np.ndarray:
        """Lambdas to choose among, `(l, K-1)`, so many that reconstructions of `size` bytes fit in `BYTES`."""
        if self.model.members:
            return np.array(self.model.members, np.float32)
        count = len(self.terms) - 1
        most = min(101 if count == 1 else DENSE, BYTES // size)
        return hyperparams.product([np.linspace(0, 1, max(2, int(most ** (1 / count) + 1e-9)))] * count)

    def _starts(self) -> np.ndarray:
        """Lambdas from which to climb to the best, `(s, K-1)`."""
        if self.model.members:
            return np.array(self.model.members, np.float32)
        count = len(self.terms) - 1
        return hyperparams.product([np.linspace(0, 1, {1: 11, 2: 5}.get(count, 2))] * count)

    def _generate(self, lam: tuple[float, ...]):
        return self._at(self.variables, jnp.asarray(lam))


class Compiled(NamedTuple):
    """Reconstructions of a measured slice and their scores."""

    one: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]  # theta, running statistics, the slice
    many: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]  # variables, lambdas (l, K-1), the slice


def _compile(model: Model, problem: Problem) -> Compiled:
    def outcome(x_hat, measured):
        """J and, where the truth is known, the metrics."""
        j = problem.data_consistency(x_hat, measured.y)
        return x_hat, {"data_consistency": j} | ({} if measured.x is None else _values(x_hat, measured.x))

    @jax.jit
    def one(theta, batch_stats, measured):
        return outcome(apply_main(model, theta, batch_stats, measured.net_input), measured)

    @jax.jit
    def many(variables, lams, measured):
        return jax.lax.map(lambda lam: outcome(reconstruct(model, variables, lam, measured.net_input), measured), lams)

    return Compiled(one, many)


def _climb(model, variables, starts, metric, net_input, x):
    """The best lambda by the metric of a number, all in one program, since compiling takes longer than climbing."""

    def value(lam):
        x_hat = reconstruct(model, variables, lam, net_input)
        of = [lambda x_hat, name=name: SIGN[name] * scoring.FULL_REFERENCE[name](x_hat, x) for name in METRICS]
        return jax.lax.switch(metric, of, x_hat)

    return choose.best_lambda(value, starts)


def _values(x_hat, x):
    return {name: scoring.FULL_REFERENCE[name](x_hat, x) for name in METRICS}


_compare = jax.jit(_values)


def _plain(lam: Any) -> list[float]:
    """To four digits: what no eye can tell apart is one lambda."""
    return [round(float(v), 4) for v in lam]


def _numbers(found: Mapping[str, Any]) -> dict[str, float | None]:
    """For JSON, which knows no infinity."""
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}
