"""Does lambda give a person a real choice? Trained runs at the corners of lambda, on images of people.

At a corner all weight is on a single loss term (`hyperparams.corners`). lambda matters if the reconstruction of each corner
is the best in its own loss, and if the reconstructions of two corners differ visibly: their RMS difference is compared with
the RMS error of the first. The measurements are those of the study of real people.

    OUT/choice.md, choice.json, corners.png
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax import figures
from hyperrecon_jax.data import evenly_spaced
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values
from hyperrecon_jax.models.hyperparams import corners
from hyperrecon_jax.models.model import apply_main, network_at
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.labels import term_label
from hyperrecon_jax.runs.load import load
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.studies.people import People, check_people, person_statistics, read_unseen, show_progress
from hyperrecon_jax.studies.plan import Plan
from hyperrecon_jax.studies.reconstruction_methods import TASKS, Task, make_task_problem, observe, read_run_config

TABLE, FIGURES, PICTURE = "choice.md", "choice.json", "corners.png"
MOST_TERMS = 4
PICTURED_TASK = 1  # the 8-fold one
PICTURED_PEOPLE = 2


class CornerScores(NamedTuple):
    """What the K corners of lambda make of one image."""

    x_hat: np.ndarray  # (K, h, w, 1)
    losses: np.ndarray  # (K, K): [j, k] is the loss of term k at corner j
    distances: np.ndarray  # (K, K): the RMS difference of two corners, and on the diagonal the RMS error of one


def make_plan(*, root: str, runs: Sequence[str], slices: int = 1, size: int = 256) -> Plan:
    """The plan of the study. Nothing is trained: the report does all of it.

    Args:
        root: a folder of images, one sub-folder for each person (`data/sources/folder.py`).
        runs: folders of trained runs of the task "csmri".
        slices: at most this many of each person, evenly spaced.
        size: the pixels along both sides to which slices are resampled.

    Raises:
        InputError: if there is no root or no such run, or a number is too small.
    """
    check_people(root, slices=slices, size=size)
    for run in runs:
        read_run_config(Path(run), most_terms=MOST_TERMS)
    return Plan(
        title=f"The choice that lambda gives the people in {root}, slices of each: {slices}, by {', '.join(runs)}",
        groups=((),),
        report=partial(_report, root=Path(root), runs=[Path(run) for run in runs], slices=slices, size=size),
        labels=(),
    )


def make_corners(run: Path, task: Task, shape: tuple[int, int]) -> Callable[[np.ndarray, np.ndarray], CornerScores]:
    """A compiled function of the k-space and the reference image, both `(h, w, 1)`: what a run's corners make of them."""
    config = read_run_config(run, most_terms=MOST_TERMS)
    model, variables = load(run, acquisition=task.acquisition)
    problem = make_task_problem(config, task, shape)
    objective = Objective(make_terms(config.loss.terms, problem), tuple(config.loss.scales))
    lams = jnp.asarray(corners(len(config.loss.terms)))

    @jax.jit
    def score(variables, y, image):
        def score_corner(lam):
            theta, batch_stats = network_at(model, variables, lam)
            x_hat = apply_main(model, theta, batch_stats, problem.to_net_input(y))
            return x_hat, term_values(objective, Outcome(x_hat, Sample(image), y, theta))

        return jax.lax.map(score_corner, lams)

    def score_image(y, image):
        x_hat, losses = map(np.asarray, score(variables, jnp.asarray(y), jnp.asarray(image)))
        return CornerScores(x_hat, losses, _distances(x_hat, image))

    return score_image


def _distances(x_hat: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`CornerScores.distances` of the corners' `(K, h, w, 1)` and the reference image."""
    difference = x_hat[:, None] - x_hat[None]
    diagonal = np.arange(len(x_hat))
    difference[diagonal, diagonal] = x_hat - image
    return np.sqrt(np.mean(np.square(difference, dtype=np.float64), axis=(2, 3, 4)))


def summarize(losses: np.ndarray, distances: np.ndarray, subjects: np.ndarray, terms: Sequence[str]) -> dict[str, Any]:
    """Statistics over people of the scores of all images.

    Args:
        losses, distances: `(n, K, K)`, as in `CornerScores`.
        subjects: `(n,)` integers, the person of each image.
        terms: the names of the K loss terms.

    Returns:
        "losses": for each term its loss at its own corner, and by how much it is higher at each other corner.
        "differences": for each pair of corners their RMS difference, relative to the RMS error at the first of the two.
        Each is a mean with its 95 % interval over people.
    """
    rows = []
    for k, term in enumerate(terms):
        values = {"own": losses[:, k, k]} | {t: losses[:, j, k] - losses[:, k, k] for j, t in enumerate(terms) if j != k}
        rows.append({"term": term, **person_statistics(values, subjects)})
    pairs = list(combinations(range(len(terms)), 2))
    ratios = person_statistics({f"{j} {k}": distances[:, j, k] / distances[:, j, j] for j, k in pairs}, subjects)
    differences = [{"first": terms[j], "second": terms[k], **ratios[f"{j} {k}"]} for j, k in pairs]
    return {"losses": rows, "differences": differences}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, two tables for each task: the losses of the corners, and how far the corners are apart."""
    lines = []
    for task in dict.fromkeys(result["task"] for result in results):
        chosen = [result for result in results if result["task"] == task]
        lines += [task, "", "| | loss | at its own corner | higher at the corner of others by (95 % interval) |"]
        lines += ["| --- " * 4 + "|"]
        lines += [_loss_row(result["run"], row) for result in chosen for row in result["losses"]]
        lines += ["", "| | corners | RMS difference, relative to the RMS error at the first (95 % interval) |"]
        lines += ["| --- " * 3 + "|"]
        for result in chosen:
            for row in result["differences"]:
                names = f"{term_label(row['first'])}, {term_label(row['second'])}"
                lines.append(f"| {result['run']} | {names} | {row['mean']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _loss_row(run: str, row: Mapping[str, Any]) -> str:
    differences = [
        f"{value['mean']:+.5f} ({value['low']:+.5f} to {value['high']:+.5f}), {term_label(name)}"
        for name, value in row.items()
        if name not in ("term", "own")
    ]
    return f"| {run} | {term_label(row['term'])} | {row['own']['mean']:.5f} | {'; '.join(differences)} |"


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
    """Score the corners of all runs, task by task, and write the tables and the picture."""
    people = read_unseen(root, runs, slices=slices, size=size, say=say)
    results: list[dict[str, Any]] = []
    pictures: dict[str, tuple[np.ndarray, list[str]]] = {}
    for task in TASKS:
        for run in runs:
            terms = read_run_config(run, most_terms=MOST_TERMS).loss.terms
            scores = _score_people(run, task, people)
            losses, distances = np.stack([s.losses for s in scores]), np.stack([s.distances for s in scores])
            results.append({"task": task.title, "run": run.name, **summarize(losses, distances, people.subjects, terms)})
            if task == TASKS[PICTURED_TASK]:
                pictures |= _picture_rows(run, terms, people, scores)
    with run_folder.explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(out / FIGURES, {"people": len(people.names), "slices": len(people.images), "rows": results})
        (out / TABLE).write_text(table(results) + "\n")
        figures.image_rows(out / PICTURE, pictures)
    say(f"\n{table(results)}\n\nLook at {out / PICTURE}; the table is in {out / TABLE}.")


def _score_people(run: Path, task: Task, people: People) -> list[CornerScores]:
    """The scores of every image. Only a few of the pictures are needed, but one takes less time than to make it again."""
    score = make_corners(run, task, people.images.shape[1:3])
    images = show_progress(people, f"{task.title}, {run.name}")
    return [score(observe(task, people.images, index), image) for index, image in enumerate(images)]


def _picture_rows(
    run: Path, terms: Sequence[str], people: People, scores: Sequence[CornerScores]
) -> dict[str, tuple[np.ndarray, list[str]]]:
    """The rows of the picture of one run: for a few people the reference image and the corners."""
    _, first, counts = np.unique(people.subjects, return_index=True, return_counts=True)
    middle = first + counts // 2
    titles = ["reference", *(f"{term_label(term)} alone" for term in terms)]
    rows = {}
    for index in middle[evenly_spaced(len(middle), PICTURED_PEOPLE)]:
        images = np.stack([people.images[index], *scores[index].x_hat])[..., 0]
        rows[f"{run.name}\n{people.names[people.subjects[index]]}"] = (images, titles)
    return rows
