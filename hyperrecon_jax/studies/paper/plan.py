"""What is trained and evaluated for the report: scales, their pieces, and what is left to do in a folder.

A piece is a run (`run.py`) in a folder of its own, from a file in `configs/` with some settings changed, and its
evaluations (`commands/evaluate.py`); so each has a command of its own, too. A piece is known by its name:

    segmenter                       the network behind the Dice score
    TASK-L, TASK-M, TASK-S          HyperRecon, supervised; TASK of `TASKS`
    TASK-unets                      what they are compared with
    ao-SIZE-SAMPLING-SEED           HyperRecon without ground truth, such as ao-L-dhs-0
    ao-unets                        what they are compared with

Times are estimates: of a run that was begun by its own steps, else by stored rough figures.
"""

import itertools
import runpy
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from hyperrecon_jax.commands.evaluate import METRICS, SCORES
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.config import check_key, complete, differences, flatten
from hyperrecon_jax.runtime.errors import InputError

FIGURES = {
    "table1": "Table 1: parameters and times",
    "fig3": "Fig. 3: supervised CS-MRI over λ",
    "dice": "Dice over λ (Fig. 3, Sec. V-E.1, V-G)",
    "fig4": "Fig. 4: landscapes without ground truth",
    "dhs": "What DHS trains on (Fig. 4, top right)",
    "fig5": "Fig. 5: three supervised tasks over λ",
    "fig6": "Fig. 6: slices over λ",
    "fig7": "Fig. 7: two good reconstructions that differ",
}
TASKS = {"csmri": "8-fold CS-MRI", "csmri4x": "4-fold CS-MRI", "denoising": "denoising", "superres": "super-resolution"}
SIZES, SAMPLINGS = ("S", "M", "L"), ("uhs", "dhs")
SEGMENTER, AO_UNETS = "segmenter", "ao-unets"
LANDSCAPE = ("psnr", "rpsnr")  # the metrics of amortized optimization
OVERHEAD = 30.0  # seconds of a run beside its steps, and of an evaluation beside its reconstructions: compiling, pictures


class Evaluation(NamedTuple):
    """The options of `evaluate`, and its folder within the run's."""

    folder: str = "evaluation"
    metrics: tuple[str, ...] = METRICS
    points: int | None = None  # along each lambda; none: as `evaluate` has it
    images: int | None = None  # none: all
    dice: bool = False
    reconstructions: int = 0  # how many it makes, roughly


class Piece(NamedTuple):
    """A run and its evaluations."""

    name: str
    figures: tuple[str, ...]  # of `FIGURES`
    config: str  # FILE or FILE:VARIANT in the folder of configs
    changes: Mapping[str, Any]  # settings, by their dotted name
    step: float  # seconds a step, roughly
    evaluations: tuple[Evaluation, ...] = ()
    scales_of: str = ""  # the piece whose loss scales it takes


class Scale(NamedTuple):
    """A size at which the paper is reproduced."""

    name: str
    about: str
    machine: str  # what the rough figures are of
    pieces: tuple[Piece, ...]  # in the order of work
    rate: float  # reconstructions a second, roughly
    preparation: float = 0.0  # seconds that the data take at first, roughly
    notes: tuple[str, ...] = ()  # how it differs from the paper

    @property
    def tasks(self) -> list[str]:
        """The supervised tasks that it has."""
        return [task for task in TASKS if any(piece.name == f"{task}-L" for piece in self.pieces)]

    @property
    def seeds(self) -> int:
        """How many of each network without ground truth."""
        return sum(piece.name.startswith("ao-L-dhs-") for piece in self.pieces)


class State(NamedTuple):
    """How far a piece is."""

    steps: int  # of its run
    done: int  # steps
    evaluated: int  # evaluations
    seconds: float  # that are left
    measured: bool  # whether by its own steps

    def finished(self, piece: Piece) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.steps and self.evaluated == len(piece.evaluations)


def chosen(scale: Scale, only: Sequence[str]) -> list[Piece]:
    """The pieces that the figures `only` need, and those that they need in turn; none given: all.

    Raises:
        InputError: for a name that no figure has.
    """
    for name in only:
        if name not in FIGURES:
            raise InputError(f"--only must be among {', '.join(FIGURES)}; got {name!r}.")
    wanted = {piece.name for piece in scale.pieces if not only or set(only) & set(piece.figures)}
    for piece in scale.pieces:
        if piece.name in wanted:
            wanted |= {piece.scales_of} | ({SEGMENTER} if any(one.dice for one in piece.evaluations) else set())
    return [piece for piece in scale.pieces if piece.name in wanted]


def read_config(piece: Piece, configs: Path, out: Path) -> ConfigDict:
    """The settings of a piece.

    Args:
        piece: the piece.
        configs: the folder of config files.
        out: the folder of the pieces, for the loss scales that another one has found.

    Raises:
        InputError: if there is no such file, or a setting is wrong.
    """
    file, _, variant = piece.config.partition(":")
    path = configs / file
    if not path.is_file():
        raise InputError(f"The folder of configs must hold {file}, but {path} is no file.")
    settings = flatten(runpy.run_path(str(path))["get_config"](*filter(None, [variant])))
    settings |= piece.changes
    if piece.scales_of and (scales := run_folder.read_scales(out / piece.scales_of, settings["loss.terms"])):
        settings["loss.scales"] = scales  # before they are found, those of the file stand for them
    return complete(settings)


def state(scale: Scale, piece: Piece, configs: Path, out: Path) -> State:
    """How far a piece is, and how long the rest will take.

    Raises:
        InputError: if its folder holds something else, or a damaged run.
    """
    folder = out / piece.name
    config = read_config(piece, configs, out)
    steps, done, each, measured = config.train.steps, 0, piece.step, False
    unknown = piece.scales_of and not (out / piece.scales_of / run_folder.SCALES).exists()
    try:
        begun = not unknown and run_folder.can_resume(folder, config.to_dict(), differences)
    except InputError as error:
        raise InputError(str(error).replace("--workdir", "--out")) from error
    if begun:
        saved = [int(path.name) for path in (folder / run_folder.CHECKPOINTS).glob("*") if path.name.isdecimal()]
        done = max([run_folder.steps_reported(folder), *(step for step in saved if step < steps)])
        if (own := step_seconds(folder)) is not None:
            each, measured = own, True
    left = (steps - done) * each + OVERHEAD * (done < steps)
    missing = [one for one in piece.evaluations if not is_evaluated(folder, one)] if done >= steps else piece.evaluations
    left += sum(one.reconstructions / scale.rate + OVERHEAD for one in missing)
    return State(steps, done, len(piece.evaluations) - len(missing), left, measured)


def step_seconds(folder: Path) -> float | None:
    """Seconds that a step of a run took, the median over what it logged; None if it has not logged twice."""
    rows = [(row["step"], row["seconds"]) for row in logs.read_rows(folder / run_folder.METRICS) if "seconds" in row]
    pairs = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(rows)]
    each = [seconds / steps for steps, seconds in pairs if steps > 0]
    return statistics.median(each) if each else None


def is_evaluated(folder: Path, evaluation: Evaluation) -> bool:
    """Whether a finished run has the scores of an evaluation, of its last step."""
    file = folder / evaluation.folder / SCORES
    if not file.exists():
        return False
    ds = scores.load(file)
    grid = {size for name, size in ds.sizes.items() if str(name).startswith("lam_")}
    return (
        ds.attrs.get("steps") == run_folder.steps_reported(folder)
        and set(evaluation.metrics) <= set(ds.data_vars)
        and (not evaluation.dice or "dice" in ds)
        and (evaluation.images is None or ds.sizes["image"] == evaluation.images)
        and (evaluation.points is None or ds.attrs["kind"] != "hypernetwork" or grid == {evaluation.points})
    )


def table(scale: Scale, pieces: Sequence[Piece], states: Sequence[State]) -> str:
    """The plan as text: what there is, what is left, how long it takes."""
    width = max(len("piece"), *(len(piece.name) for piece in pieces))
    wide = max(len("config"), *(len(piece.config) for piece in pieces))
    lines = [f"{'piece':<{width}}  {'config':<{wide}}  {'steps':>6}  {'there':<22}  {'time left':>9}  for"]
    for piece, one in zip(pieces, states, strict=True):
        there = "finished" if one.finished(piece) else "nothing yet" if not one.done else f"{one.done} steps"
        if one.done >= one.steps and not one.finished(piece):
            there = f"trained, {one.evaluated} of {len(piece.evaluations)} scored"
        left = ("" if one.measured else "~") + logs.duration(one.seconds) if one.seconds else ""
        what = f"{piece.name:<{width}}  {piece.config:<{wide}}  {one.steps:>6}"
        lines.append(f"{what}  {there:<22}  {left:>9}  {', '.join(piece.figures)}")
    total = sum(one.seconds for one in states)
    if scale.preparation and not any(one.done for one in states):
        total += scale.preparation
        lines.append(f"Data are prepared first, once: ~{logs.duration(scale.preparation)}, unless they are in the cache.")
    lines.append(f"In all about {logs.duration(total)}; ~ are rough figures of {scale.machine}.")
    return "\n".join(lines)


def commands(piece: Piece, out: Path) -> list[str]:
    """What makes this piece alone: the commands of its run and of its evaluations."""
    settings = [
        f"--config.{key}={shlex.quote(_literal(key, value))}" for key, value in piece.changes.items() if value is not None
    ]
    if piece.scales_of:
        settings.append(f'--config.loss.scales="(those in {out / piece.scales_of / run_folder.SCALES})"')
    train = ["python -m bin.train", f"--config configs/{piece.config}", *settings, f"--workdir {out / piece.name}"]
    found = [" ".join(train)]
    for one in piece.evaluations:
        parts = ["python -m bin.evaluate", f"--run {out / piece.name}", f"--out {out / piece.name / one.folder}"]
        parts += [f"--metrics {','.join(one.metrics)}"] if one.metrics != METRICS else []
        parts += [f"--lams {one.points}"] if one.points else []
        parts += [f"--images {one.images}"] if one.images else []
        parts += [f"--segmenter {out / SEGMENTER}"] if one.dice else []
        found.append(" ".join(parts))
    return found


def _literal(key: str, value: Any) -> str:
    check_key(key)
    return repr(value).replace(" ", "") if isinstance(value, tuple) else str(value)
