"""Is one network for all lambdas as good as a separate network for each lambda? (Sec. V-D.1, Figs. 3 and 5)

For each seed the plan has one HyperRecon and an ensemble of U-Nets at fixed lambdas. They differ only in the learning rate.
The report says by how much the HyperRecon is better at the lambdas of the U-Nets, image by image.

    OUT/hyperrecon-SEED, OUT/unets-SEED   the runs
    OUT/comparison-SEED/                  the two side by side (`compare.compare`)
    OUT/table.md, table.json, gaps.png    all seeds
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import figures
from hyperrecon_jax.commands import compare
from hyperrecon_jax.commands.evaluation_pictures import lambda_ends
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies.plan import EvaluationOptions, Plan
from hyperrecon_jax.studies.seeds import check_seeds, seed_groups, seed_labels
from hyperrecon_jax.studies.study import compare_runs

TABLE, FIGURES, PICTURE = "table.md", "table.json", "gaps.png"
TOLERANCE = {"psnr": 0.1, "ssim": 0.003}  # the gray band of the picture: differences that nobody sees


def make_plan(config: ConfigDict, *, lams: Sequence[float], unets_rate: float | None = None, seeds: int) -> Plan:
    """The plan of the study.

    Args:
        config: of the HyperRecon, an experiment with two loss terms. Its seed is replaced.
        lams: lambdas of the U-Nets, ascending in [0, 1].
        unets_rate: the learning rate of the U-Nets, whose weights are learned and not generated; None: that of `config`.
        seeds: number of runs of each network.

    Raises:
        InputError: for an experiment without a hypernetwork, or with more than one lambda.
    """
    config = check_experiment(config, seeds=seeds)
    changes: dict[str, dict[str, Any]] = {
        "hyperrecon": {},
        "unets": unet_changes(config, lams=lams, learning_rate=unets_rate),
    }
    return Plan(
        title=f"A HyperRecon and {len(lams)} U-Nets, number of seeds: {seeds}",
        groups=seed_groups(config, changes, seeds=seeds, evaluation=EvaluationOptions()),
        report=partial(_report, terms=config.loss.terms),
        labels=seed_labels(seeds),
    )


def check_experiment(config: ConfigDict, *, seeds: int) -> ConfigDict:
    """The complete settings of an experiment that can be compared with U-Nets; arguments and errors of `make_plan`."""
    config = complete(config)
    if not config.model.hyper_width or len(config.loss.terms) != 2:
        raise InputError(
            "The study needs a config with a hypernetwork and two loss terms, got model.hyper_width "
            f"{config.model.hyper_width} and the terms {', '.join(config.loss.terms)}."
        )
    check_seeds(seeds)
    return config


def unet_changes(config: ConfigDict, *, lams: Sequence[float], learning_rate: float | None) -> dict[str, Any]:
    """The settings that turn a HyperRecon into an ensemble of U-Nets."""
    return {
        "model.hyper_width": 0,
        "lam.sampling": "ensemble",
        "lam.axes": (tuple(lams),),
        "train.learning_rate": config.train.learning_rate if learning_rate is None else learning_rate,
    }


def _report(out: Path, seeds: Sequence[int], failures: Sequence[str], say: Say, *, terms: Sequence[str]) -> None:
    """Compare the runs of the finished seeds, and write the table and the picture."""
    if not seeds:
        return
    gaps = []
    for seed in seeds:
        gaps += compare_runs([out / f"hyperrecon-{seed}", out / f"unets-{seed}"], out / f"comparison-{seed}", say=say)
    rows = summarize(gaps, seeds)
    with run_folder.explain_write_errors(out):
        run_folder.write_json(out / FIGURES, {"rows": rows, "gaps": gaps})
        (out / TABLE).write_text(table(rows) + "\n")
        names = [f"seed {seed}" for seed in seeds]
        compare.draw_gaps(out / PICTURE, gaps, names, ends=lambda_ends(terms), tolerance=TOLERANCE)
    say(f"\n{table(rows)}\n\nLook at {out / PICTURE}; the table is in {out / TABLE}.")


def summarize(gaps: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For each seed, and for the mean of several seeds: the mean and the worst gap of each metric over lambda.

    Args:
        gaps: what `compare.compare` returned for each seed.
        seeds: the numbers of the seeds.
    """
    metrics = [name for name in compare.METRICS if name in gaps[0]]
    values = {metric: np.array([gap[metric]["at_lambdas"] for gap in gaps]) for metric in metrics}
    names = [str(seed) for seed in seeds]
    if len(gaps) > 1:
        names.append("mean")
        values = {metric: np.concatenate([array, array.mean(0, keepdims=True)]) for metric, array in values.items()}
    return [
        {"seed": name} | {m: {"mean": float(values[m][i].mean()), "worst": float(values[m][i].min())} for m in metrics}
        for i, name in enumerate(names)
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: mean and worst of each metric, above 0 where the HyperRecon is better."""
    metrics = [name for name in rows[0] if name != "seed"]
    labels = [figures.label_and_sign(metric)[0] for metric in metrics]
    lines = [
        f"| seed | {' | '.join(f'Δ{label}, mean and worst' for label in labels)} |",
        "| --- " * (1 + len(metrics)) + "|",
    ]
    for row in rows:
        cells = [f"{row[metric]['mean']:+.4f}, {row[metric]['worst']:+.4f}" for metric in metrics]
        lines.append(f"| {row['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)
