"""Does one network for every lambda reach a network for each? (Sec. V-D.1, Figs. 3 and 5), at any size.

For each seed a HyperRecon and an ensemble of U-Nets at fixed lambdas, alike in all else but the learning rate, and
`compare` of the two: by how much the HyperRecon is better at the lambdas of the U-Nets, image by image.

    FOLDER/hyperrecon-SEED, FOLDER/unets-SEED   the runs
    FOLDER/comparison-SEED/                     `compare` of the two
    FOLDER/table.md, table.json, gaps.png       all seeds
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import figures
from hyperrecon_jax.commands import compare, train
from hyperrecon_jax.commands.evaluation_pictures import lambda_ends
from hyperrecon_jax.runs import report, run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runtime.errors import InputError

TABLE, FIGURES, PICTURE = "table.md", "table.json", "gaps.png"
TOLERANCE = {"psnr": 0.1, "ssim": 0.003}  # the gray band of the picture: what nobody sees


def study(
    config: ConfigDict,
    folder: Path,
    *,
    lams: Sequence[float],
    learning_rate: float | None = None,
    seeds: int,
    say: report.Say = print,
) -> bool:
    """Train what is missing, evaluate what is missing, and write the table and the picture.

    Args:
        config: of the HyperRecon, an experiment with two loss terms; its seed is replaced.
        folder: of the study.
        lams: of the U-Nets, ascending in [0, 1].
        learning_rate: of the U-Nets, whose weights are learned and not generated; none: that of `config`.
        seeds: how many of each.
        say: gets the lines to show.

    Returns:
        False if it was interrupted; the same call goes on.

    Raises:
        InputError: for an experiment that has no hypernetwork or not one lambda.
        Diverged: if a training does.
    """
    config, unets = pair(config, lams=lams, learning_rate=learning_rate, seeds=seeds)
    gaps = []
    for seed in range(seeds):
        folders = []
        for kind, each in (("hyperrecon", config), ("unets", unets)):
            one = each.copy_and_resolve_references()
            one.seed = seed
            folders.append(folder / f"{kind}-{seed}")
            say(f"\nSeed {seed}, {kind}")
            if not train.train(one, folders[-1], say=say):
                return False
        gaps += compare.compare(folders, folder / f"comparison-{seed}", say=say)
    found = rows(gaps)
    run_folder.write_json(folder / FIGURES, {"rows": found, "gaps": gaps})
    (folder / TABLE).write_text(table(found) + "\n")
    compare.draw_gaps(
        folder / PICTURE,
        gaps,
        [f"seed {seed}" for seed in range(seeds)],
        ends=lambda_ends(config.loss.terms),
        tolerance=TOLERANCE,
    )
    say(f"\n{table(found)}\n\nLook at {folder / PICTURE}; the table is in {folder / TABLE}.")
    return True


def pair(
    config: ConfigDict, *, lams: Sequence[float], learning_rate: float | None, seeds: int
) -> tuple[ConfigDict, ConfigDict]:
    """The settings of the HyperRecon and of its U-Nets; arguments and errors as of `study`."""
    config = complete(config)
    if not config.model.hyper_width or len(config.loss.terms) != 2:
        raise InputError(
            "The study needs a config with a hypernetwork and two loss terms, got model.hyper_width "
            f"{config.model.hyper_width} and the terms {', '.join(config.loss.terms)}."
        )
    if seeds < 1:
        raise InputError(f"The study needs at least 1 seed, got {seeds}.")
    unets = config.copy_and_resolve_references()
    unets.model.hyper_width, unets.lam.sampling, unets.lam.axes = 0, "ensemble", (tuple(lams),)
    unets.train.learning_rate = config.train.learning_rate if learning_rate is None else learning_rate
    return config, complete(unets)  # what no run can have is told before the first


def rows(gaps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each seed, and with several for their mean at each lambda: the mean and the worst gap of each metric.

    Args:
        gaps: what `compare.compare` returned for each seed.
    """
    metrics = [name for name in compare.METRICS if name in gaps[0]]
    at_lambdas = {name: np.array([row[name]["at_lambdas"] for row in gaps]) for name in metrics}
    named = [(str(seed), {name: values[seed] for name, values in at_lambdas.items()}) for seed in range(len(gaps))]
    if len(gaps) > 1:
        named.append(("mean", {name: values.mean(0) for name, values in at_lambdas.items()}))
    return [
        {"seed": name} | {metric: {"mean": float(gap.mean()), "worst": float(gap.min())} for metric, gap in of.items()}
        for name, of in named
    ]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: mean and worst of each metric, above 0 where the HyperRecon is better."""
    metrics = [name for name in found[0] if name != "seed"]
    names = [figures.label_and_sign(metric)[0] for metric in metrics]
    lines = [
        f"| seed | {' | '.join(f'Δ{name}, mean and worst' for name in names)} |",
        "| --- " * (1 + len(metrics)) + "|",
    ]
    for row in found:
        values = [f"{row[metric]['mean']:+.4f}, {row[metric]['worst']:+.4f}" for metric in metrics]
        lines.append(f"| {row['seed']} | {' | '.join(values)} |")
    return "\n".join(lines)
