"""Is another hypernetwork better than the paper's? Each against the same U-Nets at fixed lambdas, at any size.

For each seed an ensemble of U-Nets and one network of each variant, alike in all else but the learning rate, and `compare`
of all: by how much each variant is better than the U-Nets at their lambdas, image by image. The time of a step is that of
all in alternation, in one process, before any training.

A variant is one of `CONDITIONINGS`, of `ENCODINGS`, or one of each as in "circle+film"; "paper" is what the paper has.

    FOLDER/VARIANT-SEED, FOLDER/unets-SEED   the runs
    FOLDER/comparison-SEED/                  `compare` of those of a seed
    FOLDER/step_times.json                   seconds and ratios
    FOLDER/table.md, table.json              all seeds
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import figures
from hyperrecon_jax.benchmarks import floor, networks, timing
from hyperrecon_jax.commands import compare, train
from hyperrecon_jax.models.hypernet import ENCODINGS
from hyperrecon_jax.runs import report, run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.config_check import CONDITIONINGS
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import SHARDED, place
from hyperrecon_jax.studies import baseline_study
from hyperrecon_jax.training.step import make_step, place_state, training_mesh

PAPER, UNETS = "paper", "unets"
TABLE, FIGURES, TIMES = "table.md", "table.json", "step_times.json"
ROUNDS = 15  # steps of each that are timed
SHOWN = ("psnr", "ssim")


def study(
    config: ConfigDict,
    folder: Path,
    *,
    variants: Sequence[str],
    rates: Sequence[float] = (),
    lams: Sequence[float],
    unets_rate: float | None = None,
    seeds: int,
    say: report.Say = print,
) -> bool:
    """Time the steps, train what is missing, evaluate what is missing, and write the table.

    Args:
        config: of the paper's HyperRecon, an experiment with two loss terms; its seed, conditioning and encoding are
            replaced.
        folder: of the study.
        variants: names; steps are timed relative to the first.
        rates: a learning rate for each variant; none: that of `config` for all.
        lams: of the U-Nets, ascending in [0, 1].
        unets_rate: the learning rate of the U-Nets; none: that of `config`.
        seeds: how many of each.
        say: gets the lines to show.

    Returns:
        False if it was interrupted; the same call goes on.

    Raises:
        InputError: for an unknown variant, or an experiment that cannot be studied.
        Diverged: if a training does.
    """
    rates = rates or [complete(config).train.learning_rate] * len(variants)
    if len(rates) != len(variants):
        raise InputError(f"The study needs a learning rate for each of its {len(variants)} variants, got {len(rates)}.")
    if not variants or len({*variants}) < len(variants):
        raise InputError(f"The study needs variants of which none comes twice, got {','.join(variants) or 'none'}.")
    config, unets = baseline_study.pair(config, lams=lams, learning_rate=unets_rate, seeds=seeds)
    plan = {name: _variant(config, name, rate) for name, rate in zip(variants, rates, strict=True)} | {UNETS: unets}
    times = _step_times(plan, folder, say=say)
    gaps: list[dict[str, Any]] = []
    for seed in range(seeds):
        folders = []
        for name, each in plan.items():
            one = each.copy_and_resolve_references()
            one.seed = seed
            folders.append(folder / f"{name}-{seed}")
            say(f"\nSeed {seed}, {name}")
            if not train.train(one, folders[-1], say=say):
                return False
        gaps += compare.compare(folders, folder / f"comparison-{seed}", say=say)
        found = rows(gaps, times, {name: _trained(path) for name, path in zip(plan, folders, strict=True)})
        run_folder.write_json(folder / FIGURES, {"rows": found, "gaps": gaps})
        (folder / TABLE).write_text(table(found) + "\n")
    say(f"\n{table(found)}\n\nThe table is in {folder / TABLE}.")
    return True


def rows(
    gaps: Sequence[Mapping[str, Any]], times: Mapping[str, Mapping[str, float]], parameters: Mapping[str, int]
) -> list[dict[str, Any]]:
    """For each variant over its seeds: parameters, the step's time, the gap of each metric; last the U-Nets, without gaps.

    Of a metric: "each", for each seed the mean over lambda; "mean" and "sd" of these, the standard deviation (0 of one
    seed); "worst", the lowest over lambda of the mean over seeds. Of all but the first variant also "ahead", "each" minus
    that of the first, "ahead_mean" and "ahead_sd".

    Args:
        gaps: what `compare.compare` returned for each seed.
        times: by variant, the U-Nets too, "seconds" and "ratio".
        parameters: trained, by variant.
    """
    found: list[dict[str, Any]] = []
    for name in parameters:
        row: dict[str, Any] = {"variant": name, "parameters": parameters[name], **times[name]}
        mine = [gap for gap in gaps if gap["of"].rpartition("-")[0] == name]
        row["seeds"] = len(mine) or len({gap["to"] for gap in gaps})
        for metric in SHOWN if mine else ():
            at_lambdas = np.array([gap[metric]["at_lambdas"] for gap in mine])
            each = at_lambdas.mean(1)
            row[metric] = {"mean": float(each.mean()), "sd": _sd(each), "worst": float(at_lambdas.mean(0).min())}
            if found:  # that of the first has the same U-Nets, which cancel
                ahead = each - found[0][metric]["each"]
                row[metric] |= {"ahead": ahead.tolist(), "ahead_mean": float(ahead.mean()), "ahead_sd": _sd(ahead)}
            row[metric]["each"] = each.tolist()
        found.append(row)
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown; a gap is above 0 where the variant is better than the U-Nets, or than the first variant."""
    heads = [f"Δ{figures.label_and_sign(metric)[0]}, mean ± sd, worst" for metric in SHOWN]
    lines = [f"| variant | parameters | step | {' | '.join(heads)} |", "| --- " * (3 + len(SHOWN)) + "|"]
    for row in found:
        values = [f"{row[m]['mean']:+.4f} ± {row[m]['sd']:.4f}, {row[m]['worst']:+.4f}" if m in row else "" for m in SHOWN]
        lines.append(f"| {row['variant']} | {row['parameters']:,} | {row['ratio']:.2f} | {' | '.join(values)} |")
    others = [row for row in found if "ahead" in row.get(SHOWN[0], {})]
    if others:
        heads = [f"{figures.label_and_sign(metric)[0]}, each seed | mean ± sd" for metric in SHOWN]
        lines += ["", f"| ahead of {found[0]['variant']} in | {' | '.join(heads)} |", "| --- " * (1 + 2 * len(SHOWN)) + "|"]
    for row in others:
        values = [
            f"{', '.join(f'{value:+.4f}' for value in row[m]['ahead'])} |"
            f" {row[m]['ahead_mean']:+.4f} ± {row[m]['ahead_sd']:.4f}"
            for m in SHOWN
        ]
        lines.append(f"| {row['variant']} | {' | '.join(values)} |")
    return "\n".join(lines)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _trained(folder: Path) -> int:
    """How many parameters a finished run has trained."""
    return int(run_folder.read_json(folder / run_folder.SUMMARY)["parameters"]["trained"])


def _step_times(plan: Mapping[str, ConfigDict], folder: Path, *, say: report.Say) -> dict[str, dict[str, float]]:
    """By name, the median seconds of a step and their ratio to those of the first; kept in the folder of the study."""
    file = folder / TIMES
    if file.exists():
        kept = run_folder.read_json(file)
        if [*kept] == [*plan]:
            return kept
    timed = timing.measure("step", map(_candidate, plan, plan.values()), rounds=ROUNDS, rates=floor.rates, say=say)
    times = {row.implementation: {"seconds": row.seconds, "ratio": row.ratio} for row in timed}
    with run_folder.explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(file, times)
    return times


def _candidate(name: str, config: ConfigDict) -> timing.Candidate:
    """Successive steps on one batch that lies on the devices already."""
    experiment = build(config)
    mesh, batch = training_mesh(experiment.setup), experiment.setup.batch
    samples = place(mesh, experiment.dataset.train.samples.take(np.arange(batch)), SHARDED)
    state = place_state(mesh, experiment.state)
    step = make_step(experiment.setup, mesh, resident=False).lower(state, samples).compile()
    return timing.Candidate("training", name, networks.stepper(step, state, itertools.repeat(samples)))


def _variant(config: ConfigDict, name: str, rate: float) -> ConfigDict:
    """The settings of a variant."""
    one = config.copy_and_resolve_references()
    one.model.conditioning, one.model.encoding, one.train.learning_rate = CONDITIONINGS[0], ENCODINGS[0], rate
    known = {**{c: ("conditioning", c) for c in CONDITIONINGS[1:]}, **{e: ("encoding", e) for e in ENCODINGS[1:]}}
    parts = [] if name == PAPER else name.split("+")
    keys = [known[part][0] for part in parts if part in known]
    if len({*keys}) < len(parts):
        raise InputError(f"A variant must be {PAPER} or one or two of {', '.join(known)} with + between, got {name!r}.")
    for part in parts:
        key, value = known[part]
        one.model[key] = value
    return complete(one)  # what no run can have is told before the first
