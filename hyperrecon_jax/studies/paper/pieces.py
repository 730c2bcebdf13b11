"""The three scales and their pieces: a laptop's, one GPU's, the paper's."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperrecon_jax.runs.config import HYPER_WIDTHS
from hyperrecon_jax.studies.paper.scale import AO_LARGE, AO_UNETS, SAMPLINGS, SEGMENTER, SIZES, Scale
from hyperrecon_jax.studies.plan import EvaluationOptions, Piece, read_config

LANDSCAPE = ("psnr", "rpsnr")  # the metrics of amortized optimization
DIVERSE = EvaluationOptions("diverse", ("psnr",), points=100, images=8, reconstructions=100 * 100 * 8)  # Fig. 7
METHODS_NOTE = (
    "Loss terms, their combination (Eqs. 9, 10), DHS and metrics are the paper's; the README lists what differs in detail."
)
BRAINS = (
    "The images are made, not collected: deformed copies of one averaged brain (one anatomy) with other contrast,"
    " in place of 175 people from ABIDE and as many fastMRI knees. What the paper shows on knees is shown on these,"
    " too."
)


def laptop(configs: Path) -> Scale:
    """64 x 64, U-Nets 8 wide, about an hour and a half on two CPU cores."""
    steps, ao_steps, seeds = 2000, 3000, 2
    return Scale(
        "laptop",
        "64 × 64 pixels, U-Nets 8 channels wide, a few thousand steps of 8 images",
        "two quiet CPU cores",
        (*_laptop_supervised(configs, steps), *_laptop_ao(configs, ao_steps, seeds)),
        rate=800.0,
        preparation=40.0,
        notes=(
            BRAINS,
            "Slices are 64 × 64 and 576 in number (256 × 256 and 11,400 in the paper), the U-Net has 8 channels"
            " (32) and instance norm (batch norm); supervised networks do not add the input to the result.",
            f"Training takes {steps:,} steps (supervised) and {ao_steps:,} (without ground truth) of 8 images, with a"
            " cosine schedule: 28 and 42 epochs. Nothing is trained to its end, and small differences may go the other way"
            " in longer training. The authors' code has 100 epochs of batches of 32.",
            "The last of the five U-Nets is at λ = 0.95, not 1: SSIM alone has a second minimum at the negative of"
            " the image, in which a small U-Net may end.",
            "Learning rates differ with the width of the hypernetwork (S 0.01, M 0.003, L 0.001 without ground"
            " truth), and U-Nets have 0.01; each is the same for UHS and DHS. The paper names none.",
            "The U-Nets without ground truth are on a grid of 4 × 2 λ (19 × 19 in the paper), interpolated"
            " linearly, one"
            f" seed; landscapes are of 21 × 21 λ and 32 test slices, the mean of {seeds} seeds of each network.",
            METHODS_NOTE,
        ),
    )


def _laptop_supervised(configs: Path, steps: int) -> list[Piece]:
    """The segmenter, and HyperRecon and U-Nets for each task."""
    unets: dict[str, Any] = {"train.steps": steps, "train.learning_rate": 1e-2, "model.hyper_width": 0}
    unets |= {"lam.sampling": "ensemble", "lam.axes": ((0.0, 0.25, 0.5, 0.75, 0.95),)}
    changes: dict[str, Any] = {"data.size": 64, "data.seed": 0}
    pieces = [_piece(configs, SEGMENTER, ("dice", "fig3"), "segment_quickstart.py", changes, 0.05)]
    for task, labels in (
        ("csmri", ("fig3", "fig5", "fig6", "dice", "table1")),
        ("denoising", ("fig5",)),
        ("superres", ("fig5",)),
    ):
        segmenter = SEGMENTER if task == "csmri" else ""
        passes = 3 if segmenter else 1  # segmenting takes about twice as long as reconstructing
        grid_evaluation = EvaluationOptions(segmenter=segmenter, reconstructions=passes * 100 * 96)
        unets_evaluation = grid_evaluation._replace(reconstructions=5 * 96)
        file = f"laptop_sl.py:{task}"
        pieces += [
            _piece(configs, f"{task}-L", labels, file, {"train.steps": steps}, 0.047, (grid_evaluation,)),
            _piece(configs, f"{task}-unets", labels, file, unets, 0.159, (unets_evaluation,)),
        ]
    # S and M want larger rates than L, as they do without ground truth; these were not tuned
    for size, rate in (("M", 5e-3), ("S", 1e-2)):
        changes = {"train.steps": steps, "train.learning_rate": rate, "model.hyper_width": HYPER_WIDTHS[size]}
        grid_evaluation = EvaluationOptions(segmenter=SEGMENTER, reconstructions=3 * 100 * 96)
        pieces.append(
            _piece(configs, f"csmri-{size}", ("table1",), "laptop_sl.py:csmri", changes, 0.042, (grid_evaluation,))
        )
    return pieces


def _laptop_ao(configs: Path, steps: int, seeds: int) -> list[Piece]:
    """HyperRecon and U-Nets without ground truth."""
    rates = {"S": 1e-2, "M": 3e-3, "L": 1e-3}
    changes = {
        size: {
            "train.steps": steps,
            "model.hyper_width": HYPER_WIDTHS[size],
            "train.learning_rate": rates[size],
            "dhs.rank_over": "batch",
        }
        for size in SIZES
    }
    step_seconds = {"uhs": {"S": 0.045, "M": 0.048, "L": 0.052}, "dhs": {"S": 0.035, "M": 0.038, "L": 0.042}}
    landscape = EvaluationOptions(metrics=LANDSCAPE, points=21, images=32, reconstructions=21 * 21 * 32)
    pieces = _ao_pieces(configs, "ao_quickstart.py:{sampling}", changes, step_seconds, landscape, seeds=seeds)
    # after 500 steps two U-Nets were 0.3 dB better at 1e-2 than at 3e-3
    unets: dict[str, Any] = {"train.steps": steps, "train.learning_rate": 1e-2, "model.hyper_width": 0}
    unets |= {"lam.sampling": "ensemble", "lam.axes": ((0.0, 0.5, 0.9, 1.0), (0.0, 1.0))}
    unets_evaluation = EvaluationOptions(metrics=LANDSCAPE, images=32, reconstructions=8 * 32)
    return [*pieces, _piece(configs, AO_UNETS, ("fig4",), "ao_quickstart.py:uhs", unets, 0.26, (unets_evaluation,))]


def gpu(configs: Path) -> Scale:
    """The paper's networks and images, fewer steps, few U-Nets without ground truth."""
    return _paper_sized(
        configs,
        "gpu",
        "256 × 256 pixels and the paper's networks, 4,000 steps of 32 images (11 epochs)",
        {"train.steps": 4000},
        ((0.0, 0.5, 0.9, 1.0), (0.0, 0.5, 1.0)),
        points=21,
        notes=(
            BRAINS,
            "Training takes 4,000 steps, a ninth of the authors' 35,625.",
            "The U-Nets without ground truth are on a grid of 4 × 3 λ (19 × 19 in the paper), interpolated"
            " linearly; landscapes are of 21 × 21 λ and 64 test slices.",
            "Loss scales without ground truth come from a pilot; the paper tuned them by hand and does not give them.",
            METHODS_NOTE,
        ),
    )


def paper(configs: Path) -> Scale:
    """The paper's settings, all of them."""
    return _paper_sized(
        configs,
        "paper",
        "256 × 256 pixels, the paper's networks, 35,625 steps of 32 images (100 epochs), all baselines",
        {},
        None,
        points=100,
        notes=(
            BRAINS,
            "The paper says 19 values along each λ of the U-Nets without ground truth and prints 18, which are"
            " taken here: 324 U-Nets. Landscapes are of 100 × 100 λ and 64 test slices (the paper: all).",
            "Loss scales without ground truth come from a pilot; the paper tuned them by hand and does not give them.",
            METHODS_NOTE,
        ),
    )


def _paper_sized(
    configs: Path,
    name: str,
    about: str,
    changes: Mapping[str, Any],
    grid: tuple[tuple[float, ...], ...] | None,
    *,
    points: int,
    notes: tuple[str, ...],
) -> Scale:
    """256 x 256. The rough figures come from the paper's Table 1: hours for 35,625 steps on its GPU."""
    hours, all_unets = {"unet": 4.0, "S": 5.0, "M": 6.0, "L": 7.0}, 648 / 361
    step_seconds = {key: value * 3600 / 35_625 for key, value in hours.items()}
    hyperrecon = _ao_pieces(
        configs,
        "paper_csmri_ao_8x.py:{size}{suffix}",
        dict.fromkeys(SIZES, changes),
        dict.fromkeys(SAMPLINGS, step_seconds),
        EvaluationOptions(metrics=LANDSCAPE, points=points, images=64, reconstructions=points**2 * 64),
        seeds=1,
        scales_from=AO_LARGE,
    )
    count = len(grid[0]) * len(grid[1]) if grid else 324
    unets_evaluation = EvaluationOptions(metrics=LANDSCAPE, images=64, reconstructions=count * 64)
    ao_changes = {**changes, "lam.axes": grid} if grid else changes
    labels, time = ("fig4", "table1"), count * all_unets * 3600 / 35_625
    unets = _piece(configs, AO_UNETS, labels, "paper_baselines_ao.py", ao_changes, time, (unets_evaluation,), AO_LARGE)
    pieces = [*_paper_supervised(configs, changes, step_seconds), *hyperrecon, unets]
    machine = "the paper's Table 1 (an NVIDIA Titan Xp; not measured here, a recent GPU is several times faster)"
    return Scale(name, about, machine, tuple(pieces), rate=150.0, preparation=700.0, notes=notes)


def _paper_supervised(configs: Path, changes: Mapping[str, Any], step_seconds: Mapping[str, float]) -> list[Piece]:
    """The segmenter, and HyperRecon and U-Nets for each task."""
    tasks = {
        "csmri": ("csmri_supervised_8x", ("fig3", "fig5", "fig6", "dice", "table1")),
        "csmri4x": ("csmri_supervised_4x", ("fig3", "fig5", "dice")),
        "denoising": ("denoise", ("fig5",)),
        "superres": ("superres", ("fig5",)),
    }
    pieces = [_piece(configs, SEGMENTER, ("dice", "fig3"), "paper_segment.py", changes, step_seconds["unet"])]
    for task, (config, figures) in tasks.items():
        grid_evaluation = EvaluationOptions(segmenter=SEGMENTER if "dice" in figures else "", reconstructions=100 * 5700)
        unets_evaluation = grid_evaluation._replace(reconstructions=5 * 5700)
        for size in SIZES[::-1] if task == "csmri" else ("L",):
            labels, file = figures if size == "L" else ("table1",), f"paper_{config}.py:{size}"
            pieces.append(_piece(configs, f"{task}-{size}", labels, file, changes, step_seconds[size], (grid_evaluation,)))
        file, time = f"paper_baselines_sl.py:{config}", 5 * step_seconds["unet"]
        pieces.append(_piece(configs, f"{task}-unets", figures, file, changes, time, (unets_evaluation,)))
    return pieces


def _ao_pieces(
    configs: Path,
    file: str,
    changes: Mapping[str, Mapping[str, Any]],
    step_seconds: Mapping[str, Mapping[str, float]],
    landscape: EvaluationOptions,
    *,
    seeds: int,
    scales_from: str = "",
) -> list[Piece]:
    """HyperRecon without ground truth: seed by seed, so that an interrupted study compares like with like.

    Args:
        configs: the folder of config files.
        file: name of the config, with {sampling}, {size} and {suffix} to fill in.
        changes: changed settings, by size.
        step_seconds: time of a step, by sampling and size.
        landscape: the evaluation of each. The first piece is the network of Fig. 7, and has `DIVERSE` as well.
        seeds: number of runs of each network.
        scales_from: the piece whose loss scales the others take.
    """
    pieces = []
    for seed, size, sampling in itertools.product(range(seeds), SIZES[::-1], SAMPLINGS[::-1]):
        name = f"ao-{size}-{sampling}-{seed}"
        labels, evaluations = (
            (("fig4", "fig7", "dhs"), (landscape, DIVERSE)) if name == AO_LARGE else (("fig4",), (landscape,))
        )
        config_file = file.format(sampling=sampling, size=size, suffix="" if sampling == "dhs" else "-uhs")
        settings, time = {**changes[size], "seed": seed}, step_seconds[sampling][size]
        source = "" if name == scales_from else scales_from
        pieces.append(_piece(configs, name, labels, config_file, settings, time, evaluations, source))
    return pieces


def _piece(
    configs: Path,
    name: str,
    labels: tuple[str, ...],
    file: str,
    changes: Mapping[str, Any],
    step_seconds: float,
    evaluations: tuple[EvaluationOptions, ...] = (),
    scales_from: str = "",
) -> Piece:
    """A piece with the settings of a config file."""
    config = read_config(configs, file)
    return Piece(name, labels, config, changes, evaluations, scales_from, step_seconds, file)


SCALES = {"laptop": laptop, "gpu": gpu, "paper": paper}
