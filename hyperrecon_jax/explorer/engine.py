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
MEASURED = 16  # slices whose measurements are kept
DENSE = 441  # lambdas at most from which the diverse and the best ones are chosen: 101 of one, 21 x 21 of two
NEAR = 0.5  # dB from the best PSNR, within which a reconstruction is good
AT_ONCE = 16  # lambdas in one call
BYTES = 2**29  # of the reconstructions among which the diverse ones are chosen
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
    start: int  # the slice to show first: that with the most in it


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
        experiment, state = load(run)
        config = self.config = experiment.config
        self.model, self.variables = experiment.setup.model, report.variables(state)
        self.key = experiment.key_test  # of the noise
        self.steps = int(state.step)
        if config.task.name == "segmentation" or not (self.model.hyper or self.model.members):
            raise InputError(
                f"{run} must hold a run that reconstructs for more than one lambda; this one has nothing to move."
            )
        self.terms = tuple(config.loss.terms)
        images = experiment.dataset.test.images[..., 0]
        file = volumes.Volume(images, "image", None, (0.0, 1.0), "")
        task = Task(experiment.setup.operator, experiment.setup.observe)
        own = Shown("test images", "", file, task, images, _fullest(images))
        self._test_images = evaluate.digest(images)
        self._lock = threading.RLock()
        self._shown: OrderedDict[str, Shown] = OrderedDict(test=own)
        self._tasks: dict[tuple[int, ...], Task] = {images.shape[1:]: own.task}
        self._network = functools.lru_cache(NETWORKS)(self._generate)
        self._measured = functools.lru_cache(MEASURED)(self._measure)
        self._at = jax.jit(functools.partial(network_at, self.model))
        self._climb = jax.jit(functools.partial(_climb, self.model))

    # What there is.

    def about(self) -> dict[str, Any]:
        """The run, for the page: names, the ends of each lambda, the volumes, the landscape if it was evaluated."""
        with self._lock:
            known = [self.volume(name) for name in self._shown]
        return {
            "name": self.run.resolve().name,
            "folder": str(self.run),
            "steps": self.steps,
            "task": self._sentence(),
            "lams": [self._ends(k) for k in range(len(self.terms) - 1)],
            "metrics": METRICS,
            "best_metrics": METRICS,
            "volumes": known,
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
        task = self.config.task
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
        measured, task = self._measured("test", 0), self._shown["test"].task

        def rest() -> None:
            self._many(task)(self.variables, self._starts()[:1].repeat(AT_ONCE, 0), measured)
            self._climb(self.variables, self._starts(), 0, measured.lifted, measured.x)

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
        if kind == "kspace" and self.config.task.name != "csmri":
            raise InputError(f"Measured k-space means nothing to this run, whose task is {self._sentence()}.")
        volume = hashlib.sha256(kind.encode() + content).hexdigest()[:20]
        file = volumes.read(name, content, kind=kind)
        shown = self._show(name, file)
        with self._lock:
            self._shown.pop(volume, None)
            self._shown[volume] = shown
            size = {known: _bytes(shown) for known, shown in self._shown.items() if known != "test"}
            for old in [known for known in size if known != volume]:
                if sum(size.values()) <= UPLOADS:
                    break
                del self._shown[old], size[old]
                self._measured.cache_clear()
        return volume

    def _show(self, name: str, file: volumes.Volume) -> Shown:
        shape = file.slices.shape[1:]
        trained = self._shown["test"].file.slices.shape[1:]
        notes = [file.note]
        if shape != trained:
            notes.append(f"The network was trained on {trained[0]} x {trained[1]} pixels, this is {shape[0]} x {shape[1]}.")
        start = _fullest(file.slices)
        if file.kind == "image":
            return Shown(name, _sentences(notes), file, self._task(shape), file.slices, start)
        sampled = (np.abs(file.slices) > 0).any(0)
        if sampled.mean() > 0.99:  # all of k-space: its image is the truth, and the run's mask is applied
            notes.append("All of k-space is there: it is under-sampled as the run does, and its own image is the truth.")
            truth = np.abs(np.fft.ifft2(file.slices, norm="ortho")).astype(np.float32)
            return Shown(name, _sentences(notes), file, self._task(shape), truth, start)
        notes.append(f"{sampled.mean():.0%} of k-space was measured.")
        operator = operators.csmri(jnp.asarray(sampled, jnp.float32))
        return Shown(name, _sentences(notes), file, Task(operator, lambda key, x: operator.measure(x)), None, start)

    def _task(self, shape: tuple[int, ...]) -> Task:
        if shape not in self._tasks:
            self._tasks[shape] = Task(*make_task(self.config, (shape[0], shape[1])))
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
        y = evaluate.measure(shown.task.observe, self.key, x[None], jnp.asarray([index]))[0]
        return Measured(y, shown.task.operator.lift(y), x)

    def _look(self, volume: str, index: int) -> tuple[Shown, Measured]:
        with self._lock:
            return self._find(volume, index), self._measured(volume, index)

    # What a slice becomes. Only the quick ones exclude each other: a long one does not stop a hand that drags.

    def slice(self, volume: str, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The magnitude of the network's input and, if it is known, the truth, `(1 or 2, h, w)`; the input's scores."""
        _, measured = self._look(volume, index)
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
            shown, measured = self._look(volume, index)
            x_hat, found = self._one(shown.task)(*self._network(lam), measured)
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
        shown, measured = self._look(volume, index)
        lams = self._dense(measured.lifted.size // 2 * 4) if lams is None else np.asarray(lams, np.float32)
        many, parts = self._many(shown.task), []
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
        _, measured = self._look(volume, index)
        if measured.x is None:
            raise InputError("The best lambda needs the truth, which is not known of this volume.")
        lam, value = self._climb(self.variables, self._starts(), METRICS.index(metric), measured.lifted, measured.x)
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


def _climb(model, variables, starts, metric, lifted, x):
    """The best lambda by the metric of a number, all in one program, since compiling takes longer than climbing."""

    def value(lam):
        x_hat = reconstruct(model, variables, lam, lifted)
        of = [lambda x_hat, name=name: SIGN[name] * evaluate.WITH_TRUTH[name](x_hat, x) for name in METRICS]
        return jax.lax.switch(metric, of, x_hat)

    return choose.best_lambda(value, starts)


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


def _fullest(slices: np.ndarray) -> int:
    return int(np.argmax([np.abs(image).mean() for image in slices]))


def _bytes(shown: Shown) -> int:
    return shown.file.slices.nbytes + (0 if shown.truth is None or shown.truth is shown.file.slices else shown.truth.nbytes)


def _sentences(parts: Sequence[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)


def _numbers(found: Mapping[str, Any]) -> dict[str, float | None]:
    """For JSON, which knows no infinity."""
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}
