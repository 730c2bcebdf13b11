"""Is another hypernetwork better than the paper's? Each variant is compared with the same U-Nets at fixed lambdas.

For each seed the plan has one run of each variant and an ensemble of U-Nets. They differ only in the hypernetwork and in
the learning rate. The report says by how much each variant is better than the U-Nets at their lambdas, image by image, and
how long its step takes. Steps are timed before any training, in alternation, in one process.

A variant is one of `CONDITIONINGS`, one of `ENCODINGS`, or one of each as in "circle+film"; "paper" is the paper's.

    OUT/VARIANT-SEED, OUT/unets-SEED   the runs
    OUT/comparison-SEED/               the runs of a seed side by side (`compare.compare`)
    OUT/step_times.json                seconds and ratios
    OUT/table.md, table.json           all seeds
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import figures
from hyperrecon_jax.benchmarks import floor, networks, timing
from hyperrecon_jax.models.hypernet import ENCODINGS
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config_check import CONDITIONINGS
from hyperrecon_jax.runs.experiment import build
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import SHARDED, place
from hyperrecon_jax.studies.baselines import check_experiment, unet_changes
from hyperrecon_jax.studies.plan import EvaluationOptions, Plan, settings
from hyperrecon_jax.studies.seeds import sample_sd, seed_groups, seed_labels
from hyperrecon_jax.studies.study import compare_runs
from hyperrecon_jax.training.step import make_step, place_state, training_mesh

PAPER, UNETS = "paper", "unets"
TABLE, FIGURES, TIMES = "table.md", "table.json", "step_times.json"
ROUNDS = 15  # timed steps of each variant
METRICS = ("psnr", "ssim")  # metrics of the table

StepTimes = dict[str, dict[str, float]]
"""By variant: "seconds" of a step, and its "ratio" to those of the first variant."""


def make_plan(
    config: ConfigDict,
    *,
    variants: Sequence[str],
    rates: Sequence[float] = (),
    lams: Sequence[float],
    unets_rate: float | None = None,
    seeds: int,
) -> Plan:
    """The plan of the study.

    Args:
        config: of the paper's HyperRecon, an experiment with two loss terms. Its seed, conditioning and encoding are
            replaced.
        variants: names. Steps are timed relative to the first.
        rates: a learning rate for each variant; none: that of `config` for all.
        lams: lambdas of the U-Nets, ascending in [0, 1].
        unets_rate: the learning rate of the U-Nets; None: that of `config`.
        seeds: number of runs of each network.

    Raises:
        InputError: for an unknown variant, or an experiment that cannot be studied.
    """
    config = check_experiment(config, seeds=seeds)
    rates = rates or [config.train.learning_rate] * len(variants)
    if len(rates) != len(variants):
        raise InputError(f"The study needs a learning rate for each of its {len(variants)} variants, got {len(rates)}.")
    if not variants or len({*variants}) < len(variants):
        raise InputError(f"The study needs variants of which none comes twice, got {','.join(variants) or 'none'}.")
    changes = {name: _variant_changes(name, rate) for name, rate in zip(variants, rates, strict=True)}
    changes[UNETS] = unet_changes(config, lams=lams, learning_rate=unets_rate)
    groups = seed_groups(config, changes, seeds=seeds, evaluation=EvaluationOptions())
    configs = {name: settings(piece, Path()) for name, piece in zip(changes, groups[0], strict=True)}
    return Plan(
        title=f"{', '.join(variants)} and {len(lams)} U-Nets, number of seeds: {seeds}",
        groups=groups,
        report=partial(_report, names=[*changes]),
        labels=seed_labels(seeds),
        prepare=partial(_time_steps, configs=configs),
    )


def _variant_changes(name: str, learning_rate: float) -> dict[str, Any]:
    """The settings of a variant."""
    changes = {"conditioning": CONDITIONINGS[0], "encoding": ENCODINGS[0]}
    keys = {**dict.fromkeys(CONDITIONINGS[1:], "conditioning"), **dict.fromkeys(ENCODINGS[1:], "encoding")}
    parts = [] if name == PAPER else name.split("+")
    if len({keys.get(part) for part in parts} - {None}) < len(parts):
        raise InputError(f"A variant must be {PAPER} or one or two of {', '.join(keys)} with + between, got {name!r}.")
    changes |= {keys[part]: part for part in parts}
    return {f"model.{key}": value for key, value in changes.items()} | {"train.learning_rate": learning_rate}


def _time_steps(out: Path, say: Say, *, configs: Mapping[str, ConfigDict]) -> None:
    """Time a training step of each variant, unless the folder of the study has these times already."""
    file = out / TIMES
    if file.exists() and [*run_folder.read_json(file)] == [*configs]:
        return
    candidates = map(_candidate, configs, configs.values())
    rows = timing.measure("step", candidates, rounds=ROUNDS, rates=floor.measure_rates, say=say)
    times: StepTimes = {row.implementation: {"seconds": row.seconds, "ratio": row.ratio} for row in rows}
    with run_folder.explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(file, times)


def _candidate(name: str, config: ConfigDict) -> timing.Candidate:
    """Successive steps on one batch, which is on the devices from the start."""
    experiment = build(config)
    mesh, batch = training_mesh(experiment.setup), experiment.setup.batch
    samples = place(mesh, experiment.dataset.train.samples.take(np.arange(batch)), SHARDED)
    state = place_state(mesh, experiment.state)
    step = make_step(experiment.setup, mesh, resident=False).lower(state, samples).compile()
    return timing.Candidate("training", name, networks.make_stepper(step, state, itertools.repeat(samples)))


def _report(out: Path, seeds: Sequence[int], failures: Sequence[str], say: Say, *, names: Sequence[str]) -> None:
    """Compare the runs of the finished seeds, and write the table."""
    if not seeds:
        return
    gaps: list[dict[str, Any]] = []
    for seed in seeds:
        gaps += compare_runs([out / f"{name}-{seed}" for name in names], out / f"comparison-{seed}", say=say)
    summaries = {name: run_folder.read_json(out / f"{name}-{seeds[-1]}" / run_folder.SUMMARY) for name in names}
    parameters = {name: int(summary["parameters"]["trained"]) for name, summary in summaries.items()}
    rows = summarize(gaps, run_folder.read_json(out / TIMES), parameters)
    with run_folder.explain_write_errors(out):
        run_folder.write_json(out / FIGURES, {"rows": rows, "gaps": gaps})
        (out / TABLE).write_text(table(rows) + "\n")
    say(f"\n{table(rows)}\n\nThe table is in {out / TABLE}.")


def summarize(gaps: Sequence[Mapping[str, Any]], times: StepTimes, parameters: Mapping[str, int]) -> list[dict[str, Any]]:
    """For each variant over its seeds: parameters, the step's time, the gap of each metric; last the U-Nets, without gaps.

    A metric has "each": for each seed the mean over lambda; "mean" and "sd" of these, the standard deviation (0 for one
    seed); "worst": the lowest over lambda of the mean over seeds. All variants but the first also have "ahead": "each"
    minus that of the first variant, with "ahead_mean" and "ahead_sd".

    Args:
        gaps: what `compare.compare` returned for each seed.
        times: time of a step, by variant, including the U-Nets.
        parameters: number of trained parameters, by variant, including the U-Nets.
    """
    rows: list[dict[str, Any]] = []
    for name in parameters:
        row: dict[str, Any] = {"variant": name, "parameters": parameters[name], **times[name]}
        variant_gaps = [gap for gap in gaps if gap["of"].rpartition("-")[0] == name]
        row["seeds"] = len(variant_gaps) or len({gap["to"] for gap in gaps})
        for metric in METRICS if variant_gaps else ():
            at_lambdas = np.array([gap[metric]["at_lambdas"] for gap in variant_gaps])
            means = at_lambdas.mean(1)
            row[metric] = {"mean": float(means.mean()), "sd": sample_sd(means), "worst": float(at_lambdas.mean(0).min())}
            if rows:  # both are gaps to the same U-Nets, which cancel
                ahead = means - rows[0][metric]["each"]
                row[metric] |= {"ahead": ahead.tolist(), "ahead_mean": float(ahead.mean()), "ahead_sd": sample_sd(ahead)}
            row[metric]["each"] = means.tolist()
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown; a gap is above 0 where the variant is better than the U-Nets, or than the first variant."""
    labels = [figures.label_and_sign(metric)[0] for metric in METRICS]
    heads = [f"Δ{label}, mean ± sd, worst" for label in labels]
    lines = [f"| variant | parameters | step | {' | '.join(heads)} |", "| --- " * (3 + len(METRICS)) + "|"]
    for row in rows:
        cells = [f"{row[m]['mean']:+.4f} ± {row[m]['sd']:.4f}, {row[m]['worst']:+.4f}" if m in row else "" for m in METRICS]
        lines.append(f"| {row['variant']} | {row['parameters']:,} | {row['ratio']:.2f} | {' | '.join(cells)} |")
    others = [row for row in rows if "ahead" in row.get(METRICS[0], {})]
    if others:
        heads = [f"{label}, each seed | mean ± sd" for label in labels]
        lines += ["", f"| ahead of {rows[0]['variant']} in | {' | '.join(heads)} |"]
        lines.append("| --- " * (1 + 2 * len(METRICS)) + "|")
    for row in others:
        cells = [
            f"{', '.join(f'{value:+.4f}' for value in row[m]['ahead'])} |"
            f" {row[m]['ahead_mean']:+.4f} ± {row[m]['ahead_sd']:.4f}"
            for m in METRICS
        ]
        lines.append(f"| {row['variant']} | {' | '.join(cells)} |")
    return "\n".join(lines)
