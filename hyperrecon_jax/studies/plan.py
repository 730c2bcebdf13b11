"""A plan: the runs of a study, their evaluations, and how much of them a folder holds.

A Python file with a function `get_plan()` returns a plan, as a file with `get_config()` returns the settings of a run;
`configs/plans/` has the plans of the documentation. A piece of a plan is one run in a folder of its own, and the
evaluations of that run. It is an ordinary run: `commands` gives the command lines that make it without the plan.

Times are estimates: from the steps of the run itself once it has begun, before that from the plan's rough figures.
"""

import inspect
import itertools
import runpy
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from hyperrecon_jax.commands.evaluate import METRICS
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.config import check_key, complete, differences, flatten
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

OVERHEAD = 30.0  # seconds of a run beside its steps, and of an evaluation beside its images: compiling, drawing


class EvaluationOptions(NamedTuple):
    """The options of one evaluation, and the name of its folder within the run's."""

    folder: str = "evaluation"
    metrics: tuple[str, ...] = METRICS
    points: int | None = None  # number of grid points along each lambda; None: the default of bin.evaluate
    images: int | None = None  # test images at most; None: all
    segmenter: str = ""  # the piece whose network segments, for the Dice score; "": no Dice score
    reconstructions: int = 0  # number of images that it reconstructs, roughly


class Piece(NamedTuple):
    """A run and its evaluations."""

    name: str  # name of its folder
    labels: tuple[str, ...]  # the labels by which --only selects it
    config: ConfigDict  # settings, before the changes
    changes: Mapping[str, Any]  # settings by their dotted name
    evaluations: tuple[EvaluationOptions, ...] = ()
    scales_from: str = ""  # the piece whose loss scales it takes
    step_seconds: float | None = None  # the time of a step, roughly
    file: str = ""  # FILE or FILE:VARIANT in the folder of configs, where `config` comes from there


Report = Callable[[Path, Sequence[int], Sequence[str], Say], None]
"""Writes tables and pictures. It gets the folder of the study, the indices of the groups that are finished, a sentence for
each training that diverged, and the function that shows lines to the user."""


class Plan(NamedTuple):
    """The runs, the evaluations and the report of a study."""

    title: str  # a line for the user
    groups: tuple[tuple[Piece, ...], ...]  # pieces in the order of work; a report follows each group, also an empty one
    report: Report
    labels: tuple[str, ...]  # all that --only takes
    prepare: Callable[[Path, Say], None] | None = None  # called with the folder before the first training
    machine: str = ""  # the machine on which the estimates were measured
    rate: float = 800.0  # reconstructions per second, roughly
    preparation: float = 0.0  # seconds that the data take the first time, roughly

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of all groups."""
        return [piece for group in self.groups for piece in group]


class Progress(NamedTuple):
    """How far a piece has come."""

    steps: int  # steps of its run
    done: int  # finished steps
    evaluations: int
    evaluated: int  # finished evaluations
    seconds: float | None  # seconds until it is finished; None if there is nothing to estimate them from
    measured: bool  # whether `seconds` comes from the steps of the run itself

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.steps and self.evaluated == self.evaluations


def read_plan(file: str, options: Mapping[str, Any]) -> Plan:
    """The plan that a Python file makes.

    Args:
        file: path of the file, with a function `get_plan`; "FILE:VARIANT" passes VARIANT as its first argument.
        options: the other arguments of `get_plan`, by name.

    Raises:
        InputError: if there is no such file, or it cannot be used, or its plan does not have these options.
    """
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise InputError(f"The plan file {path} does not exist.")
    try:
        get_plan = runpy.run_path(path)["get_plan"]
        accepted = list(inspect.signature(get_plan).parameters.values())
        names = [parameter.name for parameter in accepted if parameter.kind is parameter.KEYWORD_ONLY]
        if unknown := [name for name in options if name not in names]:
            raise InputError(f"The plan {path} has no option --{unknown[0]}; it has {', '.join(names) or 'none'}.")
        if variant and len(names) == len(accepted):
            raise InputError(f"The plan {path} has no variants, so nothing may follow a colon; got {variant!r}.")
        plan = get_plan(*filter(None, [variant]), **options)
    except InputError:
        raise
    except Exception as error:
        reason = "it has no function get_plan" if error.args == ("get_plan",) else f"{type(error).__name__}: {error}"
        raise InputError(f"The plan file {path} cannot be used: {reason}.") from error
    if not isinstance(plan, Plan):
        raise InputError(f"get_plan() of {path} must return a Plan, got {type(plan).__name__}.")
    return plan


def read_config(configs: Path, file: str) -> ConfigDict:
    """The settings that a config file returns.

    Args:
        configs: the folder of config files.
        file: FILE or FILE:VARIANT within it.

    Raises:
        InputError: if there is no such file.
    """
    name, _, variant = file.partition(":")
    path = configs / name
    if not path.is_file():
        raise InputError(f"The folder of configs must hold {name}, but {path} is no file.")
    config: ConfigDict = runpy.run_path(str(path))["get_config"](*filter(None, [variant]))
    return config


def settings(piece: Piece, out: Path) -> ConfigDict:
    """The complete settings of a piece.

    Args:
        piece: the piece.
        out: the folder of the study, which may hold the loss scales that another piece has found.

    Raises:
        InputError: if a setting is wrong.
    """
    values = flatten(piece.config) | dict(piece.changes)
    if piece.scales_from and (scales := run_folder.read_scales(out / piece.scales_from, values["loss.terms"])):
        values["loss.scales"] = scales  # until they are found, those of the config stand in for them
    return complete(values)


def select(plan: Plan, only: Sequence[str]) -> list[Piece]:
    """The pieces with one of the labels `only`, and the pieces that they depend on; all pieces if there are no labels.

    Raises:
        InputError: for an unknown label.
    """
    for label in only:
        if label not in plan.labels:
            raise InputError(f"--only must be among {', '.join(plan.labels) or 'nothing'}; got {label!r}.")
    names = {piece.name for piece in plan.pieces if not only or set(only) & set(piece.labels)}
    for piece in plan.pieces:
        if piece.name in names:
            names |= {piece.scales_from, *(evaluation.segmenter for evaluation in piece.evaluations)}
    return [piece for piece in plan.pieces if piece.name in names]


def progress(plan: Plan, piece: Piece, out: Path) -> Progress:
    """How far a piece has come in the folder `out`, and how long the rest will take.

    Raises:
        InputError: if the folder of the piece holds something else, or a damaged run.
    """
    folder, config = out / piece.name, settings(piece, out)
    steps, done, step_time, measured = config.train.steps, 0, piece.step_seconds, False
    scales_missing = piece.scales_from and not (out / piece.scales_from / run_folder.SCALES).exists()
    try:
        begun = not scales_missing and run_folder.can_resume(folder, config.to_dict(), differences)
    except InputError as error:
        raise InputError(str(error).replace("--workdir", "--out")) from error
    if begun:
        saved = [int(path.name) for path in (folder / run_folder.CHECKPOINTS).glob("*") if path.name.isdecimal()]
        done = max([run_folder.steps_reported(folder), *(step for step in saved if step < steps)])
        measured_time = step_seconds(folder)
        step_time, measured = (step_time, False) if measured_time is None else (measured_time, True)
    trained = done >= steps
    missing = [e for e in piece.evaluations if not (trained and is_evaluated(folder, e))]
    seconds = sum(evaluation.reconstructions / plan.rate + OVERHEAD for evaluation in missing)
    if not trained:
        seconds += OVERHEAD + (steps - done) * (step_time or 0.0)
    return Progress(
        steps=steps,
        done=done,
        evaluations=len(piece.evaluations),
        evaluated=len(piece.evaluations) - len(missing),
        seconds=seconds if trained or step_time is not None else None,
        measured=measured,
    )


def step_seconds(folder: Path) -> float | None:
    """Seconds that a step of a run took, the median over its log; None if it has logged less than twice."""
    rows = [(row["step"], row["seconds"]) for row in logs.read_rows(folder / run_folder.METRICS) if "seconds" in row]
    intervals = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(rows)]
    times = [seconds / steps for steps, seconds in intervals if steps > 0]
    return statistics.median(times) if times else None


def num_images(folder: Path, evaluation: EvaluationOptions) -> int | None:
    """How many test images of a finished run an evaluation takes; None for all."""
    if evaluation.images is None:
        return None
    available = run_folder.read_json(folder / run_folder.SUMMARY).get("test_images", evaluation.images)
    return min(evaluation.images, int(available))


def is_evaluated(folder: Path, evaluation: EvaluationOptions) -> bool:
    """Whether a finished run has the scores of an evaluation, of its last step."""
    file = folder / evaluation.folder / scores.SCORES
    if not file.exists():
        return False
    ds = scores.load(file)
    grid = {size for name, size in ds.sizes.items() if str(name).startswith("lam_")}
    return (
        ds.attrs.get("steps") == run_folder.steps_reported(folder)
        and set(evaluation.metrics) <= set(ds.data_vars)
        and (not evaluation.segmenter or "dice" in ds)
        and (evaluation.images is None or ds.sizes["image"] == num_images(folder, evaluation))
        and (evaluation.points is None or ds.attrs["kind"] != "hypernetwork" or grid == {evaluation.points})
    )


def table(plan: Plan, pieces: Sequence[Piece], states: Sequence[Progress]) -> str:
    """The plan as text: for each piece what exists, what is left, and how long that takes."""
    name_width = max(len("piece"), *(len(piece.name) for piece in pieces))
    file_width = max(len("config"), *(len(piece.file) for piece in pieces))
    lines = [f"{'piece':<{name_width}}  {'config':<{file_width}}  {'steps':>6}  {'state':<22}  {'time left':>9}  for"]
    for piece, state in zip(pieces, states, strict=True):
        exists = "finished" if state.finished else "nothing yet" if not state.done else f"{state.done} steps"
        if state.done >= state.steps and not state.finished:
            exists = f"trained, {state.evaluated} of {state.evaluations} scored"
        left = "unknown" if state.seconds is None else ""
        if state.seconds:
            left = ("" if state.measured else "~") + logs.duration(state.seconds)
        start = f"{piece.name:<{name_width}}  {piece.file:<{file_width}}  {state.steps:>6}"
        lines.append(f"{start}  {exists:<22}  {left:>9}  {', '.join(piece.labels)}")
    return "\n".join([*lines, *_total(plan, states)])


def _total(plan: Plan, states: Sequence[Progress]) -> list[str]:
    """The last lines of `table`: how long everything takes."""
    if any(state.seconds is None for state in states):
        return ["How long all of it takes can be told once a run has logged some steps."]
    total, lines = sum(state.seconds or 0.0 for state in states), []
    if plan.preparation and not any(state.done for state in states):
        total += plan.preparation
        lines.append(f"Data are prepared first, once: ~{logs.duration(plan.preparation)}, unless they are in the cache.")
    rough = f"; ~ are rough figures of {plan.machine}" if plan.machine else ""
    return [*lines, f"In all about {logs.duration(total)}{rough}."]


def commands(piece: Piece, out: Path) -> list[str]:
    """The command lines that make a piece without the plan: one for its run, one for each evaluation."""
    flags = [
        f"--config.{key}={shlex.quote(_literal(key, value))}" for key, value in piece.changes.items() if value is not None
    ]
    if piece.scales_from:
        flags.append(f'--config.loss.scales="(those in {out / piece.scales_from / run_folder.SCALES})"')
    train = adapt(f"hyperrecon train --config {piece.file.replace('.py', '')}")
    lines = [" ".join([train, *flags, f"--workdir {out / piece.name}"])]
    for evaluation in piece.evaluations:
        parts = [adapt(f"hyperrecon evaluate --run {out / piece.name}"), f"--out {out / piece.name / evaluation.folder}"]
        parts += [f"--metrics {','.join(evaluation.metrics)}"] if evaluation.metrics != METRICS else []
        parts += [f"--lams {evaluation.points}"] if evaluation.points else []
        parts += [f"--images {evaluation.images}"] if evaluation.images else []
        parts += [f"--segmenter {out / evaluation.segmenter}"] if evaluation.segmenter else []
        lines.append(" ".join(parts))
    return lines


def _literal(key: str, value: Any) -> str:
    check_key(key)
    return repr(value).replace(" ", "") if isinstance(value, tuple) else str(value)
