"""Carry out a plan: train and evaluate what is missing, then compare and report.

The same call resumes after an interruption; what is finished is used again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperrecon_jax.commands import compare, train
from hyperrecon_jax.commands.evaluate import evaluate
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import Diverged, InputError
from hyperrecon_jax.studies.plan import Piece, Plan, is_evaluated, num_images, progress, select, settings, table

COMPARISON = "comparison.json"  # what `compare.compare` writes


def show_plan(plan: Plan, out: Path, *, only: Sequence[str] = (), say: Say = print) -> list[Piece]:
    """Say what `run_study` would do and how long it would take; returns the selected pieces.

    Arguments and errors are those of `run_study`.
    """
    pieces = select(plan, only)
    states = [progress(plan, piece, out) for piece in pieces]
    say(f"{plan.title}.\n{table(plan, pieces, states)}" if pieces else f"{plan.title}.")
    return pieces


def run_study(plan: Plan, out: Path, *, only: Sequence[str] = (), say: Say = print) -> bool:
    """Carry out a plan, group by group, and report after each group.

    Training that diverges does not stop the other pieces.

    Args:
        plan: what to do.
        out: the folder of the study. Each piece has a folder in it.
        only: labels of the pieces to make, of `plan.labels`; none: all of them.
        say: shows lines to the user.

    Returns:
        False if it was interrupted.

    Raises:
        InputError: for an unknown label, wrong settings, or a folder that holds something else. Nothing is trained then.
        Diverged: after the last report, if a training diverged.
    """
    pieces = show_plan(plan, out, only=only, say=say)
    if plan.prepare is not None:
        plan.prepare(out, say)
    names = [piece.name for piece in pieces]
    failures: list[str] = []
    for group in plan.groups:
        selected = [piece for piece in group if piece.name in names]
        for piece in selected:
            if progress(plan, piece, out).finished:
                continue
            say(f"\n{names.index(piece.name) + 1} of {len(names)}: {piece.name}")
            try:
                if not _make_piece(piece, out, say=say):
                    return False
            except Diverged as error:
                failures.append(f"{piece.name}: {error}")
                say(failures[-1])
        if selected or not group:  # a group without pieces is a report alone
            plan.report(out, _finished_groups(plan, out), failures, say)
    if failures:
        raise Diverged(" ".join(failures))
    return True


def compare_runs(runs: Sequence[Path], out: Path, *, say: Say) -> list[dict[str, Any]]:
    """The gaps that `compare.compare` returns, read from `out` if the runs have not been evaluated again since then."""
    file = out / COMPARISON
    if file.exists():
        comparison = run_folder.read_json(file)
        evaluated = max((run / "evaluation" / scores.SCORES).stat().st_mtime for run in runs)
        if comparison["runs"] == [str(run) for run in runs] and file.stat().st_mtime > evaluated:
            gaps: list[dict[str, Any]] = comparison["gaps"]
            return gaps
    return compare.compare(runs, out, say=say)


def _make_piece(piece: Piece, out: Path, *, say: Say) -> bool:
    """Train a piece and evaluate it; returns False if that was interrupted."""
    folder = out / piece.name
    if not train.train(settings(piece, out), folder, say=say):
        return False
    for evaluation in piece.evaluations:
        if not is_evaluated(folder, evaluation):
            evaluate(
                folder,
                folder / evaluation.folder,
                metrics=evaluation.metrics,
                points=evaluation.points,
                count=num_images(folder, evaluation),
                segmenter=out / evaluation.segmenter if evaluation.segmenter else None,
                say=say,
            )
    return True


def _finished_groups(plan: Plan, out: Path) -> list[int]:
    """The indices of the groups whose pieces are all finished."""
    return [i for i, group in enumerate(plan.groups) if all(_is_finished(plan, piece, out) for piece in group)]


def _is_finished(plan: Plan, piece: Piece, out: Path) -> bool:
    try:
        return progress(plan, piece, out).finished
    except InputError:  # its folder holds something else; an error only for a piece that is to be made
        return False
