"""The content of the report, before it is laid out: what the paper shows and says, and ours beside it.

Pictures are drawn into OUT/figures (`pictures.py`), or are those of the evaluated runs. Numbers come from
`numbers.gather`.
"""

import datetime
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from hyperrecon_jax.runs import checkpoint, logs
from hyperrecon_jax.studies.paper import claims, pictures, tables
from hyperrecon_jax.studies.paper.numbers import Numbers
from hyperrecon_jax.studies.paper.pictures import Picture
from hyperrecon_jax.studies.paper.scale import FIGURES, Scale
from hyperrecon_jax.studies.paper.tables import Table
from hyperrecon_jax.studies.paper.texts import INTRODUCTION, PAPER, TITLE
from hyperrecon_jax.studies.plan import commands


class Section(NamedTuple):
    """A figure or table of the paper."""

    key: str  # of `FIGURES`
    title: str
    paper: str  # what the paper shows there, in our words
    pictures: list[Picture]
    tables: list[Table]
    verdicts: list[claims.Verdict]
    commands: list[str]  # that make its runs


class Report(NamedTuple):
    """All of the report."""

    title: str
    introduction: str
    about: list[tuple[str, str]]
    verdicts: list[claims.Verdict]
    sections: list[Section]
    notes: list[str]  # how it differs from the paper


def make_report(scale: Scale, out: Path, numbers: Numbers, failures: Sequence[str] = ()) -> Report:
    """Draw the pictures that there are numbers for, and put the report together.

    Args:
        scale: what the pieces are.
        out: their folder.
        numbers: what `numbers.gather` found in it.
        failures: sentences about the trainings that diverged.
    """
    folder = out / "figures"
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        figure_pictures = pictures.draw_all(scale, out)
    figure_tables = tables.make_all(scale, out, numbers)
    command = f"python -m bin.study --plan configs/plans/reproduce.py:{scale.name} --out {out}"
    verdicts = claims.judge(numbers)
    sections = [
        Section(
            key,
            title,
            PAPER[key],
            figure_pictures.get(key, []),
            figure_tables.get(key, []),
            [verdict for verdict in verdicts if verdict.figure == key],
            [f"{command} --only {key}", *_commands(scale, key, out)],
        )
        for key, title in FIGURES.items()
    ]
    notes = [*scale.notes, *(f"This went wrong: {failure}" for failure in failures)]
    title = f"{TITLE}: reproduced at the scale “{scale.name}”"
    return Report(title, INTRODUCTION, _about(scale, numbers, command), verdicts, sections, notes)


def _commands(scale: Scale, key: str, out: Path) -> list[str]:
    """The commands that make the runs of a figure one by one."""
    return [line for piece in scale.pieces if key in piece.labels for line in commands(piece, out)]


def _about(scale: Scale, numbers: Numbers, command: str) -> list[tuple[str, str]]:
    """How the report was made."""
    times = [row["training_seconds"] for row in numbers.get("table", {}).values()]
    return [
        ("Paper", "A. Q. Wang, A. V. Dalca, M. R. Sabuncu, MELBA 2022, doi:10.59275/j.melba.2022-e5ec"),
        ("Scale", f"{scale.name}: {scale.about}"),
        ("Made", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")),
        ("With", f"hyperrecon_jax {_version('hyperrecon_jax')}, jax {_version('jax')}, flax {_version('flax')}"),
        ("On", f"{os.cpu_count()} CPU cores, JAX's device: {jax.devices()[0].device_kind}"),
        ("Training so far", f"{logs.duration(sum(times))} in {len(times)} runs" if times else "none"),
        ("Command", command),
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # used from its folder
        return "(not installed)"
