"""What the explorer computes and keeps: one run, the volumes on show, and the networks of the last lambdas. No HTTP.

Anything here may be called from any thread; one computes at a time. A volume is known by its id: "test" holds the run's own
test images, another the digest of the file that it came from. Scores are those of `evaluate`.
"""

import functools
import hashlib
import io
import re
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import choose, diverse, evaluate, hyperparams, operators, report, scores, volumes
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.evaluate_run import SCORES
from hyperrecon_jax.experiment import load, make_task, term_name
from hyperrecon_jax.model import apply_main, network_at, reconstruct
from hyperrecon_jax.objective import Outcome, make_terms

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
MEASURED = 64  # slices whose measurements are kept
DENSE = 441  # lambdas at most from which the diverse and the best ones are chosen: 101 of one, 21 x 21 of two
NEAR = 0.5  # dB from the best PSNR, within which a reconstruction is good
UPLOADS = 2**30  # bytes of volumes that are kept beside the test images; the oldest go
FORMATS = ("png", "npy", "nii")


class Task(NamedTuple):
    """What is asked of slices of one size."""

    operator: operators.Operator
    observe: evaluate.Observe


class Shown(NamedTuple):
    """A volume on show."""

    name: str
    note: str
    file: volumes.Volume  # of which slices are measured as the run does, unless it is k-space
    task: Task
    truth: np.ndarray | None  # (n, h, w)

    @property
    def start(self) -> int:
        """The slice to show first: that with the most in it."""
        return int(np.abs(self.file.slices).mean((1, 2)).argmax())


class Measured(NamedTuple):
    """A slice as the network gets it."""

    y: jax.Array
    lifted: jax.Array  # (h, w, 2)
    x: jax.Array | None  # (h, w, 1), the truth


class Engine:
    """A run to look through.

    Args:
        run: the folder of a run with a hypernetwork, or of an ensemble.

    Raises:
        InputError: if there is no such run, or it has one lambda or segments.
    """

    def __init__(self, run: Path):
        self.run = run
        self.experiment, state = load(run)
        self.model, self.variables = self.experiment.setup.model, report.variables(state)
        self.steps = int(state.step)
        config = self.experiment.config
        if config.task.name == "segmentation" or not (self.model.hyper or self.model.members):
            raise InputError(
                f"{run} must hold a run that reconstructs for more than one lambda; this one has nothing to move."
            )
        self.terms = tuple(config.loss.terms)
        images = self.experiment.dataset.test.images[..., 0]
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        setup = self.experiment.setup
        own = Shown("test images", "", file, Task(setup.operator, setup.observe), images)
        self._lock = threading.RLock()
        self._shown: OrderedDict[str, Shown] = OrderedDict(test=own)
        self._tasks: dict[tuple[int, ...], Task] = {images.shape[1:]: own.task}
        self._network = functools.lru_cache(NETWORKS)(self._generate)
        self._measured = functools.lru_cache(MEASURED)(self._measure)
        self._at = jax.jit(functools.partial(network_at, self.model))
        self._climb = jax.jit(functools.partial(_climb, self.model, len(self.terms)))

    # What there is.

    def about(self) -> dict[str, Any]:
        """The run, for the page: names, the ends of each lambda, the volumes, the landscape if it was evaluated."""
        h, w = self._shown["test"].file.slices.shape[1:]
        return {
            "name": self.run.resolve().name,
            "folder": str(self.run),
            "task": self._sentence(),
            "lams": [self._ends(k) for k in range(len(self.terms) - 1)],
            "metrics": METRICS,
            "best_metrics": METRICS,
            "size": [h, w],
            "volumes": [self.volume(name) for name in list(self._shown)],
            "evaluation": self._evaluation(),
            "writable": True,
        }

    def volume(self, volume: str) -> dict[str, Any]:
        """A volume's id, name, size, the slice to start at, whether its truth is known, and what was done to its file."""
        shown = self._find(volume)
        count, h, w = shown.file.slices.shape
        return {
            "id": volume,
            "name": shown.name,
            "slices": count,
            "height": h,
            "width": w,
            "start": shown.start,
            "truth": shown.truth is not None,
            "note": shown.note,
        }

    def _sentence(self) -> str:
        task = self.experiment.config.task
        noise = f", noise {task.sigma:g}" if task.sigma else ""
        return {
            "csmri": f"{task.acceleration:g}-fold under-sampled MRI{noise}",
            "denoising": f"denoising{noise}",
            "super_resolution": f"{task.factor}-fold super-resolution{noise}",
        }[task.name]

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
        """The mean over the test images at each lambda of the grid, if `bin.evaluate` was run on this state."""
        try:
            ds = scores.load(self.run / "evaluation" / SCORES)
        except InputError:
            return None
        if ds.attrs.get("steps") != self.steps:
            return None
        lams = [f"lam_{k}" for k in range(1, len(self.terms))]
        means = {name: ds[name].mean("image").transpose(*lams).values.ravel() for name in METRICS if name in ds}
        return {
            "axes": [ds[lam].values.tolist() for lam in lams],
            "values": {name: mean.astype(float).tolist() for name, mean in means.items() if np.isfinite(mean).all()},
        }

    def warm(self) -> None:
        """Compile what the page asks for first; the rest without holding up who asks meanwhile."""
        self.reconstruct("test", 0, [0.5] * (len(self.terms) - 1))
        measured, task = self._measured("test", 0), self._shown["test"].task

        def rest() -> None:
            self._many(task)(self.variables, self._dense(), measured)
            self._climb(self.variables, 0, measured.lifted, measured.x)

        threading.Thread(target=rest, daemon=True).start()

    # Volumes.

    def add(self, name: str, content: bytes, kind: str = "image") -> str:
        """Take in a file; its id.

        Args:
            name: of the file.
            content: of the file.
            kind: "image": measure its slices as the run's task does. "kspace": take it as it was measured.

        Raises:
            InputError: if it cannot be read, or k-space means nothing to the run's task.
        """
        if kind == "kspace" and self.experiment.config.task.name != "csmri":
            raise InputError(f"Measured k-space means nothing to this run, whose task is {self._sentence()}.")
        volume = hashlib.sha256(kind.encode() + content).hexdigest()[:20]
        file = volumes.read(name, content, kind=kind)
        with self._lock:
            shown = self._show(name, file)
            self._shown.pop(volume, None)
            self._shown[volume] = shown
            size = sum(known.file.slices.nbytes for known in self._shown.values())
            for old in [known for known in self._shown if known not in ("test", volume)]:
                if size <= UPLOADS:
                    break
                size -= self._shown.pop(old).file.slices.nbytes
        return volume

    def _show(self, name: str, file: volumes.Volume) -> Shown:
        shape = file.slices.shape[1:]
        trained = self._shown["test"].file.slices.shape[1:]
        notes = [file.note]
        if shape != trained:
            notes.append(f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {shape[0]} x {shape[1]}.")
        if file.kind == "image":
            return Shown(name, _sentences(notes), file, self._task(shape), file.slices)
        sampled = (np.abs(file.slices) > 0).any(0)
        if sampled.mean() > 0.99:  # all of k-space: its image is the truth, and the run's mask is applied
            notes.append("All of k-space is there: it is under-sampled as the run does, and its own image is the truth.")
            truth = np.abs(np.fft.ifft2(file.slices, norm="ortho")).astype(np.float32)
            return Shown(name, _sentences(notes), file, self._task(shape), truth)
        notes.append(f"{sampled.mean():.0%} of k-space was measured.")
        operator = operators.csmri(jnp.asarray(sampled, jnp.float32))
        return Shown(name, _sentences(notes), file, Task(operator, lambda key, x: operator.measure(x)), None)

    def _task(self, shape: tuple[int, ...]) -> Task:
        if shape not in self._tasks:
            self._tasks[shape] = Task(*make_task(self.experiment.config, (shape[0], shape[1])))
        return self._tasks[shape]

    def _find(self, volume: str, index: int = 0) -> Shown:
        shown = self._shown.get(volume)
        if shown is None:
            raise InputError(f"There is no volume {volume!r} any more; drop the file again.")
        if not 0 <= index < len(shown.file.slices):
            raise InputError(f"The slice must be in [0, {len(shown.file.slices) - 1}], got {index}.")
        return shown

    def _measure(self, volume: str, index: int) -> Measured:
        shown = self._find(volume, index)
        x = None if shown.truth is None else jnp.asarray(shown.truth[index])[..., None]
        if shown.file.kind == "kspace":
            image = jnp.fft.ifft2(jnp.asarray(shown.file.slices[index]), norm="ortho")[..., None]
            y = shown.task.operator.measure(image)  # the mask on the k-space that was measured
            return Measured(y, shown.task.operator.lift(y), x)
        assert x is not None
        y = evaluate.measure(shown.task.observe, self.experiment.key_test, x[None], jnp.asarray([index]))[0]
        return Measured(y, shown.task.operator.lift(y), x)

    # What a slice becomes.

    def slice(self, volume: str, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The magnitude of the network's input and, if it is known, the truth, `(1 or 2, h, w)`; the input's scores."""
        with self._lock:
            measured = self._measured(volume, index)
            image = operators.magnitude(measured.lifted)
            planes = [image] if measured.x is None else [image, measured.x]
            found = {} if measured.x is None else _compare(image, measured.x)
            known = {"truth": measured.x is not None, "metrics": _numbers(found)}
            return np.stack([np.asarray(plane)[..., 0] for plane in planes]), known

    def reconstruct(self, volume: str, index: int, lam: Sequence[float]) -> tuple[np.ndarray, dict[str, Any]]:
        """The reconstruction `(h, w)`, its scores (J always, the others if the truth is known), the time it took."""
        lam = self._lambda(lam)
        start = time.perf_counter()
        with self._lock:
            shown, measured = self._find(volume, index), self._measured(volume, index)
            x_hat, found = self._one(shown.task)(*self._network(lam), measured)
            image = np.asarray(x_hat)[..., 0]
        known = {"lam": lam, "metrics": _numbers(found), "milliseconds": 1000 * (time.perf_counter() - start)}
        return image, known

    def diverse(self, volume: str, index: int, count: int) -> tuple[list[list[float]], str]:
        """Lambdas of good reconstructions of a slice that differ most (Sec. V-H), and what good means.

        Good are, among a dense set of lambdas, those above the 90th percentile of PSNR, and those within half a dB of the
        best, since with two losses the best tenth is one short stretch of lambda. Where the truth is not known, it is the
        half that is nearest the measurement.
        """
        if not 2 <= count <= 24:
            raise InputError(f"The number of reconstructions must be in [2, 24], got {count}.")
        lams = self._dense()
        with self._lock:
            shown, measured = self._find(volume, index), self._measured(volume, index)
            x_hat, found = self._many(shown.task)(self.variables, lams, measured)
            known = measured.x is not None
            if known:
                quality = np.asarray(found["psnr"])
                good = np.union1d(diverse.good(quality), np.flatnonzero(quality >= quality.max() - NEAR))
            else:
                good = diverse.good(-np.asarray(found["data_consistency"]), percentile=50)
            chosen = good[diverse.diverse_set(np.asarray(x_hat)[good], min(count, len(good)))]
        criterion = (
            f"PSNR among the best tenth, or within {NEAR:g} dB of the best,"
            if known
            else "The half nearest the measurement"
        )
        return [
            _plain(lam) for lam in lams[chosen]
        ], f"{criterion} of {len(lams)} lambdas; of these, the {len(chosen)} that differ most."

    def best(self, volume: str, index: int, metric: str) -> tuple[list[float], float]:
        """The lambda with the best score of a slice whose truth is known, by gradient through the hypernetwork."""
        if metric not in METRICS:
            raise InputError(f"The metric must be one of {', '.join(METRICS)}, got {metric!r}.")
        with self._lock:
            measured = self._measured(volume, index)
            if measured.x is None:
                raise InputError("The best lambda needs the truth, which is not known of this volume.")
            lam, value = self._climb(self.variables, METRICS.index(metric), measured.lifted, measured.x)
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
        files = [self._file(volume, index, lam, format, window, level) for lam in lams]
        if len(files) == 1:
            return files[0]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, one in files:
                archive.writestr(name, one)
        return f"{Path(files[0][0]).name.partition('_lambda')[0]}.zip", content.getvalue()

    def _file(self, volume, index, lam, format, window, level):
        image, known = self.reconstruct(volume, index, lam)
        shown = self._find(volume, index)
        metadata = {
            "software": "hyperrecon_jax",
            "run": self.run.resolve().name,
            "task": self._sentence(),
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

    def _dense(self) -> np.ndarray:
        count = len(self.terms) - 1
        return hyperparams.product([np.linspace(0, 1, 101 if count == 1 else max(2, int(DENSE ** (1 / count))))] * count)

    def _generate(self, lam: tuple[float, ...]):
        return self._at(self.variables, jnp.asarray(lam))

    @functools.lru_cache(maxsize=8)  # noqa: B019 - an engine lives as long as its server
    def _one(self, task: Task):
        consistency = make_terms(("data_consistency",), task.operator)["data_consistency"]

        @jax.jit
        def one(theta, batch_stats, measured):
            x_hat = apply_main(self.model, theta, batch_stats, measured.lifted)
            return x_hat, _scores(consistency, x_hat, measured)

        return one

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def _many(self, task: Task):
        consistency = make_terms(("data_consistency",), task.operator)["data_consistency"]

        @jax.jit
        def many(variables, lams, measured):
            def at(lam):
                x_hat = reconstruct(self.model, variables, lam, measured.lifted)
                return x_hat, _scores(consistency, x_hat, measured)

            return jax.lax.map(at, lams)

        return many


def _climb(model, num_terms, variables, metric, lifted, x):
    """The best lambda by the metric of a number, all in one program, since compiling takes longer than climbing."""

    def value(lam):
        x_hat = reconstruct(model, variables, lam, lifted)
        of = [lambda x_hat, name=name: SIGN[name] * evaluate.WITH_TRUTH[name](x_hat, x) for name in METRICS]
        return jax.lax.switch(metric, of, x_hat)

    return choose.best_lambda(value, hyperparams.grid(11 if num_terms == 2 else 5, num_terms - 1))


def _scores(consistency, x_hat, measured):
    """J and, where the truth is known, the metrics."""
    j = consistency(Outcome(x_hat, x_hat, measured.y, {}))
    return {"data_consistency": j} | ({} if measured.x is None else _values(x_hat, measured.x))


def _values(x_hat, x):
    return {name: evaluate.WITH_TRUTH[name](x_hat, x) for name in METRICS}


_compare = jax.jit(_values)


def _plain(lam: Any) -> list[float]:
    """To four digits: what no eye can tell apart is one lambda."""
    return [round(float(v), 4) for v in lam]


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)


def _numbers(found: Mapping[str, Any]) -> dict[str, float | None]:
    """For JSON, which knows no infinity."""
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}
