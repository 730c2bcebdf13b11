"""The content of the report: what the paper shows and says, and ours beside it. `report.html` lays it out.

Pictures are drawn into OUT/figures (`pictures.py`), or are those of the evaluated runs. Numbers come from `numbers.gather`.
"""

import datetime
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.machine import package_version
from hyperrecon_jax.studies.paper import pictures, tables, texts, verdicts
from hyperrecon_jax.studies.paper.numbers import Numbers
from hyperrecon_jax.studies.paper.scale import FIGURES, Scale
from hyperrecon_jax.studies.plan import commands

PACKAGES = ("hyperrecon_jax", "jax", "flax")  # whose versions a report names


def make_content(scale: Scale, out: Path, numbers: Numbers, failures: Sequence[str] = ()) -> dict[str, Any]:
    """Draw the pictures that there are numbers for, and gather what the page shows.

    Args:
        scale: what the pieces are.
        out: their folder.
        numbers: what `numbers.gather` found in it.
        failures: sentences about the trainings that diverged.

    Returns:
        The variables of the template `report.html`. Those with a value for each figure have the keys of `scale.FIGURES`.
    """
    folder = out / "figures"
    with run_folder.explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        figure_pictures = pictures.draw_all(scale, out)
    command = adapt(f"hyperrecon study --plan reproduce:{scale.name} --out {shlex.quote(str(out))}")
    return {
        "title": f"{texts.TITLE}: reproduced at the scale “{scale.name}”",
        "introduction": texts.INTRODUCTION,
        "about": _about(scale, numbers, command),
        "verdicts": verdicts.judge(numbers),
        "figures": FIGURES,
        "paper": texts.PAPER,
        "pictures": figure_pictures,
        "tables": tables.make_all(scale, out, numbers),
        "commands": {
            key: [f"{command} --only {key}", *(line for p in scale.pieces if key in p.labels for line in commands(p, out))]
            for key in FIGURES
        },
        "notes": [*scale.notes, *(f"This went wrong: {failure}" for failure in failures)],
    }


def _about(scale: Scale, numbers: Numbers, command: str) -> dict[str, str]:
    """How the report was made."""
    times = [row["training_seconds"] for row in numbers.get("table", {}).values()]
    return {
        "Paper": "A. Q. Wang, A. V. Dalca, M. R. Sabuncu, MELBA 2022, doi:10.59275/j.melba.2022-e5ec",
        "Scale": f"{scale.name}: {scale.about}",
        "Made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "With": ", ".join(
            f"{name} {package_version(name) or '(not installed)'}" for name in ("hyperrecon_jax", "jax", "flax")
        ),
        "On": f"{os.cpu_count()} CPU cores, JAX's device: {jax.devices()[0].device_kind}",
        "Training so far": f"{logs.duration(sum(times))} in {len(times)} runs" if times else "none",
        "Command": command,
    }
