"""How good are reconstructions of real people? Trained runs against classical methods, on the same measurements.

Each slice of each person is measured three times (`reconstruction_methods.TASKS`), with a fixed mask and fixed noise. Rows
are the zero-filled image, total variation and wavelets by sigpy, and any number of trained runs at five lambdas. The weight
of a classical method is the one with the best PSNR for each image. That needs the reference image: in practice the PSNR
would be lower. Nobody is scored in whose images one of the runs was trained or validated.

    OUT/scores.jsonl   one line for each image and method, by which an interrupted study resumes
    OUT/table.md, table.json, people.png
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import figures
from hyperrecon_jax.data import evenly_spaced
from hyperrecon_jax.evaluation.scoring import digest
from hyperrecon_jax.losses.metric_table import METRICS
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.studies.people import People, check_people, person_means, person_statistics, read_unseen, show_progress
from hyperrecon_jax.studies.plan import Plan
from hyperrecon_jax.studies.reconstruction_methods import (
    TASKS,
    TOTAL_VARIATION,
    WAVELET,
    ZERO_FILLED,
    Method,
    Task,
    classical_methods,
    observe,
    read_run_config,
    run_label,
    run_methods,
)

SCORES, TABLE, FIGURES, PICTURE = "scores.jsonl", "table.md", "table.json", "people.png"
REPORTED = ("psnr", "ssim", "mae")
PICTURED_LAM = 0.5
PICTURED_PEOPLE = 3


def make_plan(*, root: str, runs: Sequence[str] = (), slices: int = 2, size: int = 256) -> Plan:
    """The plan of the study. Nothing is trained: the report does all of it.

    Args:
        root: a folder of images, one sub-folder for each person (`data/sources/folder.py`).
        runs: folders of trained runs, of the task "csmri" with two loss terms.
        slices: at most this many of each person, evenly spaced.
        size: the pixels along both sides to which slices are resampled.

    Raises:
        InputError: if there is no root or no such run, or a number is too small.
    """
    check_people(root, slices=slices, size=size)
    for run in runs:
        read_run_config(Path(run))
    names = ", ".join([ZERO_FILLED, TOTAL_VARIATION, WAVELET, *runs])
    return Plan(
        title=f"Reconstructions of the people in {root}, slices of each: {slices}, by {names}",
        groups=((),),
        report=partial(_report, root=Path(root), runs=[Path(run) for run in runs], slices=slices, size=size),
        labels=(),
    )


def score_method(method: Method, task: Task, people: People, file: Path, stored: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of every image, `REPORTED` and "weight", from `stored` or computed and appended to `file`."""
    reconstruct_image = None
    rows = []
    for index, image in enumerate(show_progress(people, f"{task.title}, {method.name}")):
        key = digest(method.identity, repr(task), str(index), image)
        if key not in stored:
            reconstruct_image = reconstruct_image or method.make(task, image.shape[:2])
            x_hat, weight = reconstruct_image(observe(task, people.images, index), image)
            stored[key] = {**_score(x_hat, image), "weight": weight}
            with file.open("a") as stream:
                # the line begins with its end, in case an interruption cut off the last one
                stream.write("\n" + json.dumps({"key": key, **stored[key]}))
        rows.append(stored[key])
    return rows


@jax.jit
def _metrics(x_hat: jax.Array, image: jax.Array) -> list[jax.Array]:
    return [compare(x_hat, image) for name in REPORTED if (compare := METRICS[name].compare)]


def _score(x_hat: np.ndarray, image: np.ndarray) -> dict[str, float]:
    return dict(zip(REPORTED, map(float, _metrics(jnp.asarray(x_hat), jnp.asarray(image))), strict=True))


def read_scores(file: Path) -> dict[str, Any]:
    """The lines of `scores.jsonl` by their key. A last line that was cut off is left out."""
    stored = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        stored[row.pop("key")] = row
    return stored


def summarize(
    rows: Sequence[Mapping[str, Any]], inputs: Sequence[Mapping[str, Any]], subjects: np.ndarray
) -> dict[str, Any]:
    """Statistics of one method over people, from the scores of each image.

    An image's scores are averaged over the slices of a person, and these over people.

    Args:
        rows: the scores of each image by name.
        inputs: the same, of the zero-filled image.
        subjects: `(n,)` integers, the person of each image.

    Returns:
        For each of `REPORTED` "mean", "low" and "high" (95 % bootstrap interval over people) and "worst" (of a person). And
        "gain": the mean and the worst gain in PSNR of a person over the zero-filled image.
    """
    values = {name: np.array([row[name] for row in rows]) for name in REPORTED}
    result: dict[str, Any] = person_statistics(values, subjects)
    for name in REPORTED:
        worst = min if METRICS[name].higher_is_better else max
        result[name]["worst"] = float(worst(person_means(values[name], subjects)))
    gain = person_means(values["psnr"] - np.array([row["psnr"] for row in inputs]), subjects)
    return result | {"gain": {"mean": float(gain.mean()), "worst": float(gain.min())}}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a table for each task."""
    lines = []
    for task in dict.fromkeys(result["task"] for result in results):
        lines += [
            f"{task}",
            "",
            "| | PSNR (dB), 95 % interval | worst person | gain over zero-filled, least | SSIM, worst | MAE, worst |",
            "| --- " * 6 + "|",
        ]
        for result in results:
            if result["task"] == task:
                psnr, ssim, mae, gain = (result[name] for name in (*REPORTED, "gain"))
                lines.append(
                    f"| {result['method']} | {psnr['mean']:.2f} ({psnr['low']:.2f} to {psnr['high']:.2f})"
                    f" | {psnr['worst']:.2f} | {gain['mean']:+.2f}, {gain['worst']:+.2f}"
                    f" | {ssim['mean']:.3f}, {ssim['worst']:.3f} | {mae['mean']:.4f}, {mae['worst']:.4f} |"
                )
        lines.append("")
    return "\n".join(lines).rstrip()


def _report(
    out: Path,
    groups: Sequence[int],
    failures: Sequence[str],
    say: Say,
    *,
    root: Path,
    runs: Sequence[Path],
    slices: int,
    size: int,
) -> None:
    """Score all methods, task by task, and write the tables and the picture."""
    methods = [*classical_methods(), *(method for run in runs for method in run_methods(run))]
    people = read_unseen(root, runs, slices=slices, size=size, say=say)
    results = []
    with run_folder.explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        stored = read_scores(out / SCORES)
        for task in TASKS:
            rows = {method.name: score_method(method, task, people, out / SCORES, stored) for method in methods}
            for name, method_rows in rows.items():
                summary = summarize(method_rows, rows[ZERO_FILLED], people.subjects)
                results.append({"task": task.title, "method": name, **summary})
        counts = {"people": len(people.names), "slices": len(people.images), "size": size}
        run_folder.write_json(out / FIGURES, {**counts, "rows": results})
        (out / TABLE).write_text(table(results) + "\n")
        pictured = {ZERO_FILLED, TOTAL_VARIATION, *(run_label(run, PICTURED_LAM) for run in runs)}
        draw_people(out / PICTURE, people, [method for method in methods if method.name in pictured])
    say(f"\n{table(results)}\n\nLook at {out / PICTURE}; the table is in {out / TABLE}.")


def draw_people(path: Path, people: People, methods: Sequence[Method]) -> None:
    """Draw the middle slice of a few people for each task: the reference image, and what each method makes of it."""
    _, first, counts = np.unique(people.subjects, return_index=True, return_counts=True)
    middle = first + counts // 2
    rows = {}
    for task in TASKS:
        reconstruct = [method.make(task, people.images.shape[1:3]) for method in methods]
        for index in middle[evenly_spaced(len(middle), PICTURED_PEOPLE)]:
            image = people.images[index]
            y = observe(task, people.images, index)
            x_hats = [function(y, image)[0] for function in reconstruct]
            psnr = [_score(x_hat, image)["psnr"] for x_hat in x_hats]
            titles = [f"{method.name}\n{value:.2f} dB" for method, value in zip(methods, psnr, strict=True)]
            rows["\n".join([people.names[people.subjects[index]], *task.title.split(", ")])] = (
                np.stack([image, *x_hats])[..., 0],
                ["reference", *titles],
            )
    figures.image_rows(path, rows)
