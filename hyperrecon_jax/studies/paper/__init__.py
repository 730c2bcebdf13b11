"""The whole paper at a scale: train and evaluate what is missing, judge its claims, write the report.

    OUT/PIECE/                  a run for each piece (`plan.py`), with its evaluations
    OUT/TASK-comparison/        HyperRecon beside U-Nets (`compare.py`)
    OUT/TASK-look.npz           how their reconstructions look over lambda (`look.py`)
    OUT/figures/                the pictures that no run draws
    OUT/numbers.json            what the verdicts rest on (`numbers.py`, `claims.py`)
    OUT/report/index.html       the report, and report.pdf

The same call goes on after an interruption; what is finished is used again.
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrecon_jax.commands import compare, train
from hyperrecon_jax.commands.evaluate import evaluate
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.studies.paper import content, look, numbers, pages, plan
from hyperrecon_jax.studies.paper.plan import SEGMENTER, Piece, Scale

NUMBERS, REPORT = "numbers.json", "report"
__all__ = ["reproduce", "show_plan"]


def show_plan(scale: Scale, out: Path, *, configs: Path, only: Sequence[str] = (), say: Say = print) -> list[Piece]:
    """Say what `reproduce` would do and how long it would take; returns the pieces.

    Args and raises: as `reproduce`.
    """
    pieces = plan.chosen(scale, only)
    states = [plan.state(scale, piece, configs, out) for piece in pieces]
    say(f"Scale {scale.name}: {scale.about}.\n{plan.table(scale, pieces, states)}")
    return pieces


def reproduce(scale: Scale, out: Path, *, configs: Path, only: Sequence[str] = (), say: Say = print) -> bool:
    """Carry out the plan, then write the report of all that is in the folder.

    A training that diverges is told of in the report, and the others go on.

    Args:
        scale: the pieces.
        out: the folder for them and for the report.
        configs: the folder of the config files that they are made from.
        only: figures, of `plan.FIGURES`; none given: all.
        say: gets the lines to show.

    Returns:
        False if it was interrupted.

    Raises:
        InputError: for an unknown figure, or a folder that holds something else; before anything is trained.
        Diverged: after the report is written, if a training did.
    """
    pieces = show_plan(scale, out, configs=configs, only=only, say=say)
    failures = []
    for i, piece in enumerate(pieces, start=1):
        state = plan.state(scale, piece, configs, out)
        if state.finished(piece):
            continue
        say(f"\n{i} of {len(pieces)}: {piece.name}")
        try:
            if not _carry_out(piece, out, configs, say=say):
                return False
        except Diverged as error:
            failures.append(f"{piece.name}: {error}")
            say(failures[-1])
    for task in scale.tasks:
        _compare(scale, task, out, say=say)
    found = numbers.gather(scale, out)
    run_folder.write_json(out / NUMBERS, found)
    with run_folder.explain_write_errors(out / REPORT):
        page, pdf = pages.write(content.make(scale, out, found, failures), out / REPORT)
    say(f"\nThe report is in {page}, and as {pdf}; the numbers behind it are in {out / NUMBERS}.")
    if failures:
        raise Diverged(" ".join(failures))
    return True


def _carry_out(piece: Piece, out: Path, configs: Path, *, say: Say) -> bool:
    """Train a piece, and evaluate it; False if that was interrupted."""
    folder = out / piece.name
    if not train.train(plan.read_config(piece, configs, out), folder, say=say):
        return False
    for one in piece.evaluations:
        if not plan.is_evaluated(folder, one):
            evaluate(
                folder,
                folder / one.folder,
                metrics=one.metrics,
                points=one.points,
                count=one.images,
                segmenter=out / SEGMENTER if one.dice else None,
                say=say,
            )
    return True


def _compare(scale: Scale, task: str, out: Path, *, say: Say) -> None:
    """HyperRecon and the U-Nets of a task side by side, as numbers and in looks, once both are there."""
    names = [f"{task}-{size}" for size in plan.SIZES[::-1]] + [f"{task}-unets"]
    there = [name for name in names if numbers.evaluated(scale, out, name) is not None]
    if not {f"{task}-L", f"{task}-unets"} <= set(there):
        return
    compare.compare([out / name for name in there], out / f"{task}-comparison", say=say)
    look.look(out / f"{task}-unets", out / f"{task}-L", out / f"{task}-look.npz")
