"""The three scales: a laptop's, one GPU's, the paper's; their pieces are described in `plan.py`."""

from collections.abc import Mapping
from typing import Any

from hyperrecon_jax.runs.config import HYPER_WIDTHS
from hyperrecon_jax.studies.paper.plan import AO_UNETS, LANDSCAPE, SAMPLINGS, SEGMENTER, SIZES, Evaluation, Piece, Scale

ALIKE = (
    "Loss terms, their combination (Eqs. 9, 10), DHS and metrics are the paper's; the README lists what differs in detail."
)
BRAINS = (
    "The images are made, not collected: deformed copies of one averaged brain (one anatomy) with other contrast,"
    " in place of 175 people from ABIDE and as many fastMRI knees. What the paper shows on knees is shown on these,"
    " too."
)


def laptop() -> Scale:
    """64 x 64, U-Nets 8 wide, about an hour and a half on two CPU cores."""
    steps, ao_steps, seeds = 2000, 3000, 2
    of_slices = Evaluation(reconstructions=100 * 96)
    five = {"model.hyper_width": 0, "lam.sampling": "ensemble", "lam.axes": ((0.0, 0.25, 0.5, 0.75, 0.95),)}
    pieces = [
        Piece(
            SEGMENTER,
            ("dice", "fig3"),
            "segment_quickstart.py",
            {"data.size": 64, "data.seed": 0},
            0.05,
        )
    ]
    for task, figures in (("csmri", ("fig3", "fig5", "fig6", "dice")), ("denoising", ("fig5",)), ("superres", ("fig5",))):
        config, dice = f"laptop_sl.py:{task}", task == "csmri"
        scored = of_slices._replace(dice=dice, reconstructions=(3 if dice else 1) * 100 * 96)  # segmented, too
        pieces.append(
            Piece(f"{task}-L", (*figures, *(["table1"] * dice)), config, {"train.steps": steps}, 0.047, (scored,))
        )
        rates = {"train.steps": steps, "train.learning_rate": 1e-2}
        few = scored._replace(reconstructions=5 * 96)
        pieces.append(Piece(f"{task}-unets", pieces[-1].figures, config, {**rates, **five}, 0.159, (few,)))
    # S and M want larger rates than L, as they do without ground truth; these were not tuned
    for size, rate in (("M", 5e-3), ("S", 1e-2)):
        changes = {"train.steps": steps, "train.learning_rate": rate, "model.hyper_width": HYPER_WIDTHS[size]}
        scored = of_slices._replace(dice=True, reconstructions=3 * 100 * 96)
        pieces.append(Piece(f"csmri-{size}", ("table1",), "laptop_sl.py:csmri", changes, 0.042, (scored,)))
    each = {"uhs": {"S": 0.045, "M": 0.048, "L": 0.052}, "dhs": {"S": 0.035, "M": 0.038, "L": 0.042}}
    rates = {"S": 1e-2, "M": 3e-3, "L": 1e-3}
    pieces += _ao(
        "ao_quickstart.py:{sampling}",
        seeds,
        {
            size: {
                "train.steps": ao_steps,
                "model.hyper_width": HYPER_WIDTHS[size],
                "train.learning_rate": rates[size],
                "dhs.rank_over": "batch",
            }
            for size in SIZES
        },
        each,
        Evaluation(metrics=LANDSCAPE, points=21, images=32, reconstructions=21 * 21 * 32),
        Evaluation("diverse", ("psnr",), 100, 8, reconstructions=100 * 100 * 8),
    )
    grid = ((0.0, 0.5, 0.9, 1.0), (0.0, 1.0))
    # after 500 steps two U-Nets were 0.3 dB better at 1e-2 than at 3e-3
    changes = {"train.steps": ao_steps, "train.learning_rate": 1e-2, "model.hyper_width": 0}
    pieces.append(
        Piece(
            AO_UNETS,
            ("fig4",),
            "ao_quickstart.py:uhs",
            {**changes, "lam.sampling": "ensemble", "lam.axes": grid},
            0.26,
            (Evaluation(metrics=LANDSCAPE, images=32, reconstructions=8 * 32),),
        )
    )
    return Scale(
        "laptop",
        "64 × 64 pixels, U-Nets 8 channels wide, a few thousand steps of 8 images",
        "two quiet CPU cores",
        tuple(pieces),
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
            ALIKE,
        ),
    )


def gpu() -> Scale:
    """The paper's networks and images, fewer steps, few U-Nets without ground truth."""
    grid = ((0.0, 0.5, 0.9, 1.0), (0.0, 0.5, 1.0))
    return _paper_sized(
        "gpu",
        "256 × 256 pixels and the paper's networks, 4,000 steps of 32 images (11 epochs)",
        {"train.steps": 4000},
        grid,
        points=21,
        notes=(
            BRAINS,
            "Training takes 4,000 steps, a ninth of the authors' 35,625.",
            "The U-Nets without ground truth are on a grid of 4 × 3 λ (19 × 19 in the paper), interpolated"
            " linearly; landscapes are of 21 × 21 λ and 64 test slices.",
            "Loss scales without ground truth come from a pilot; the paper tuned them by hand and does not give them.",
            ALIKE,
        ),
    )


def paper() -> Scale:
    """The paper's settings, all of them."""
    return _paper_sized(
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
            ALIKE,
        ),
    )


def _paper_sized(
    name: str, about: str, changes: Mapping[str, Any], grid: tuple | None, *, points: int, notes: tuple[str, ...]
) -> Scale:
    """256 x 256; rough figures from the paper's Table 1: hours for 35,625 steps on its GPU."""
    hours, all_unets = {"unet": 4.0, "S": 5.0, "M": 6.0, "L": 7.0}, 648 / 361
    step = {key: value * 3600 / 35_625 for key, value in hours.items()}
    of_slices = Evaluation(reconstructions=100 * 5700)
    pieces = [Piece(SEGMENTER, ("dice", "fig3"), "paper_segment.py", changes, step["unet"])]
    tasks = {
        "csmri": ("csmri_supervised_8x", ("fig3", "fig5", "fig6", "dice", "table1")),
        "csmri4x": ("csmri_supervised_4x", ("fig3", "fig5", "dice")),
        "denoising": ("denoise", ("fig5",)),
        "superres": ("superres", ("fig5",)),
    }
    for task, (config, figures) in tasks.items():
        scored = of_slices._replace(dice="dice" in figures)
        few = scored._replace(reconstructions=5 * 5700)
        sizes = SIZES[::-1] if task == "csmri" else ("L",)
        for size in sizes:
            wanted = figures if size == "L" else ("table1",)
            pieces.append(Piece(f"{task}-{size}", wanted, f"paper_{config}.py:{size}", changes, step[size], (scored,)))
        pieces.append(Piece(f"{task}-unets", figures, f"paper_baselines_sl.py:{config}", changes, 5 * step["unet"], (few,)))
    pieces += _ao(
        "paper_csmri_ao_8x.py:{size}{suffix}",
        1,
        {size: dict(changes) for size in SIZES},
        {sampling: {size: step[size] for size in SIZES} for sampling in SAMPLINGS},
        Evaluation(metrics=LANDSCAPE, points=points, images=64, reconstructions=points**2 * 64),
        Evaluation("diverse", ("psnr",), 100, 8, reconstructions=100 * 100 * 8),
        scales_of="ao-L-dhs-0",
    )
    more = {"lam.axes": grid} if grid else {}
    count = len(grid[0]) * len(grid[1]) if grid else 324
    pieces.append(
        Piece(
            AO_UNETS,
            ("fig4", "table1"),
            "paper_baselines_ao.py",
            {**changes, **more},
            count * all_unets * 3600 / 35_625,
            (Evaluation(metrics=LANDSCAPE, images=64, reconstructions=count * 64),),
            "ao-L-dhs-0",
        )
    )
    machine = "the paper's Table 1 (an NVIDIA Titan Xp; not measured here, a recent GPU is several times faster)"
    return Scale(name, about, machine, tuple(pieces), rate=150.0, preparation=700.0, notes=notes)


def _ao(
    config: str,
    seeds: int,
    changes: Mapping[str, Mapping[str, Any]],
    step: Mapping[str, Mapping[str, float]],
    landscape: Evaluation,
    diverse: Evaluation,
    scales_of: str = "",
) -> list[Piece]:
    """HyperRecon without ground truth: seed by seed, so that what is there after an interruption compares like with like.

    The first is the one that Fig. 7 is of, whose loss scales the others take, where `scales_of` names it.
    """
    pieces = []
    for seed in range(seeds):
        for size in SIZES[::-1]:
            for sampling in SAMPLINGS[::-1]:
                name = f"ao-{size}-{sampling}-{seed}"
                first = (size, sampling, seed) == ("L", "dhs", 0)
                file = config.format(sampling=sampling, size=size, suffix="" if sampling == "dhs" else "-uhs")
                pieces.append(
                    Piece(
                        name,
                        ("fig4", "fig7", "dhs") if first else ("fig4",),
                        file,
                        {**changes[size], "seed": seed},
                        step[sampling][size],
                        (landscape, diverse) if first else (landscape,),
                        "" if name == scales_of else scales_of,
                    )
                )
    return pieces


SCALES = {"laptop": laptop, "gpu": gpu, "paper": paper}
