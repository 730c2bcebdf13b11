"""The paper at a scale as a plan, and its report.

OUT/PIECE/                  a run for each piece (`scale.py`), with its evaluations
OUT/TASK-comparison/        HyperRecon beside U-Nets (`compare.compare`)
OUT/TASK-look.npz           how their reconstructions look over lambda (`look.py`)
OUT/figures/                the pictures that no run draws
OUT/numbers.json            what the verdicts rest on (`numbers.py`, `verdicts.py`)
OUT/report/index.html       the report; report.pdf too, where a Chromium can print it
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hyperrecon_jax.runs import checkpoint
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.studies.paper import content, look, numbers, pages
from hyperrecon_jax.studies.paper.scale import FIGURES, SIZES, Scale
from hyperrecon_jax.studies.plan import Plan
from hyperrecon_jax.studies.study import compare_runs

NUMBERS, REPORT = "numbers.json", "report"


def make_plan(scale: Scale) -> Plan:
    """The plan of the paper at a scale. Its report shows everything that the folder holds."""
    return Plan(
        title=f"Scale {scale.name}: {scale.about}",
        groups=(scale.pieces,),
        report=partial(_report, scale=scale),
        labels=tuple(FIGURES),
        machine=scale.machine,
        rate=scale.rate,
        preparation=scale.preparation,
    )


def _report(out: Path, finished: Sequence[int], failures: Sequence[str], say: Say, *, scale: Scale) -> None:
    """Compare, judge the claims, and write the report."""
    for task in scale.tasks:
        _compare_task(scale, task, out, say=say)
    values = numbers.gather(scale, out)
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(out / NUMBERS, values)
    with checkpoint.writing(out / REPORT):
        page, pdf = pages.write(content.make_content(scale, out, values, failures), out / REPORT)
    printed = f"and as {pdf}" if pdf else "without a PDF: no Chromium here could print the page. Any browser can"
    say(f"\nThe report is in {page}, {printed}; the numbers behind it are in {out / NUMBERS}.")


def _compare_task(scale: Scale, task: str, out: Path, *, say: Say) -> None:
    """Compare HyperRecon with the U-Nets of a task, in scores and in looks, if both have been evaluated."""
    names = [f"{task}-{size}" for size in SIZES[::-1]] + [f"{task}-unets"]
    evaluated = [name for name in names if numbers.read_scores(scale, out, name) is not None]
    if {f"{task}-L", f"{task}-unets"} <= set(evaluated):
        compare_runs([out / name for name in evaluated], out / f"{task}-comparison", say=say)
        look.measure_looks(out / f"{task}-unets", out / f"{task}-L", out / f"{task}-look.npz")
