"""Each claim of the paper, as a pure function of the report's numbers (`numbers.py`).

A claim holds or does not hold by a criterion that is stated with it; where its numbers are not there, or no scale can tell,
it is "not tested at this scale". Nothing here knows a result.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.reproduce.numbers import PAPERS_UNETS, Numbers
from hyperrecon_jax.reproduce.plan import SIZES, TASKS

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested at this scale"
# What HyperRecon-L may be behind the U-Nets in the mean over lambda, at the worst lambda three times as much. Errors: as a
# part of the U-Nets' own.
TOLERANCE = {"psnr": 0.1, "ssim": 0.003, "mae": 0.02, "hfen": 0.02}
AT_WORST = 3
PAPERS = {"unet": 149_409, "S": 744_000, "M": 4_900_000, "L": 19_000_000}


class Verdict(NamedTuple):
    """What became of a claim."""

    claim: str  # in our words
    section: str  # of the paper
    figure: str  # the part of the report that shows it, of `plan.FIGURES`
    verdict: str
    number: str  # what it rests on
    why: str  # the criterion, or why it was not tested


class Claim(NamedTuple):
    """A claim, its criterion, and what tells: the numbers -> whether it holds, and what that rests on.

    `tell` raises LookupError where a number is not there.
    """

    claim: str
    section: str
    figure: str
    criterion: str
    tell: Callable[[Numbers], tuple[bool, str]]


def verdicts(numbers: Numbers) -> list[Verdict]:
    """What becomes of all claims, by the numbers of `numbers.gather`."""
    found = []
    for claim in CLAIMS:
        try:
            holds, number = claim.tell(numbers)
            told, why = (HOLDS if holds else FAILS), f"Holds if {claim.criterion}."
        except LookupError:
            told, number = UNTESTED, ""
            why = f"Its runs are not there. It would hold if {claim.criterion}."
        found.append(Verdict(claim.claim, claim.section, claim.figure, told, number, why))
    return found + [Verdict(claim, section, figure, UNTESTED, "", why) for claim, section, figure, why in BEYOND]


def _follows(task: str) -> Callable[[Numbers], tuple[bool, str]]:
    """Whether HyperRecon-L is nowhere behind the U-Nets of a task."""

    def tell(numbers):
        holds, told = True, []
        for name, tolerance in TOLERANCE.items():
            row = numbers["supervised"][task]["metrics"][name]
            gaps = np.array(row["gaps"])
            relative = name in ("mae", "hfen")
            if relative:
                gaps = gaps / np.array(row["unets"])
            holds &= bool(gaps.mean() >= -tolerance and gaps.min() >= -AT_WORST * tolerance)
            unit, form = (" dB", "+.2f") if name == "psnr" else (" %", "+.1f") if relative else ("", "+.4f")
            mean, worst = (format((100 if relative else 1) * value, form) for value in (gaps.mean(), gaps.min()))
            told.append(f"{name.upper()} {mean}{unit} (worst {worst})")
        return holds, ", ".join(told).replace("-", "−")

    return tell


def _best_dice(numbers):
    lam, values = (np.array(_first(numbers["dice"])[key]) for key in ("lambdas", "values"))
    best = lam[values.argmax()]
    text = f"best Dice {values.max():.4f} at λ = {best:.2f}; {values.min():.4f} at the worst λ"
    return bool(0.1 <= best <= 0.4), text


def _dice_with_one(numbers):
    dice = _first(numbers["dice"])
    ours, theirs = max(dice["values"]), max(dice["unets"])
    return ours >= theirs - 0.003, f"{ours:.4f} against {theirs:.4f} of the best U-Net"


def _rises(what: str) -> Callable[[Numbers], tuple[bool, str]]:
    """Whether a look of HyperRecon rises from the first lambda to the last."""

    def tell(numbers):
        look = _first(numbers["look"])
        unets, ours = look[what]
        first, last = look["lambdas"][0], look["lambdas"][-1]
        text = f"HyperRecon-L {ours[0]:.3f} at λ = {first:g} → {ours[-1]:.3f} at {last:g}; U-Nets {unets[0]:.3f} → {unets[-1]:.3f}"
        return ours[-1] > ours[0], f"{text} (truth: 1)"

    return tell


def _alike(numbers):
    look = _first(numbers["look"])
    ratio = np.mean(look["distance"]) / np.mean(look["error"])
    return bool(ratio <= 0.5), f"they differ by {ratio:.2f} of the U-Nets' own error"


def _capacity(numbers):
    ao = numbers["ao"]
    fixed, told, holds = ao["unets"], [], True
    for sampling in ("uhs", "dhs"):
        means = [float(np.mean(ao[sampling][size])) for size in SIZES]
        distances = [abs(fixed - value) for value in means]
        holds &= distances[-1] < distances[0]
        told.append(f"{sampling.upper()} " + " → ".join(f"{value:.2f}" for value in means))
    return holds, f"{', '.join(told)} dB from S to L; U-Nets {fixed:.2f} dB".replace("-", "−")


def _gains(numbers):
    return [float(np.mean(numbers["ao"]["dhs"][size]) - np.mean(numbers["ao"]["uhs"][size])) for size in SIZES]


def _gains_told(numbers, gains):
    seeds = len(numbers["ao"]["dhs"]["L"])
    each = ", ".join(f"{size} {gain:+.2f}" for size, gain in zip(SIZES, gains, strict=True))
    return f"{each} dB, mean of {seeds} {'seed' if seeds == 1 else 'seeds'}".replace("-", "−")


def _dhs_helps(numbers):
    gains = _gains(numbers)
    return min(gains) > 0, _gains_told(numbers, gains)


def _least_for_large(numbers):
    gains = _gains(numbers)
    return gains[-1] < min(gains[:-1]), _gains_told(numbers, gains)


def _concentrates(numbers):
    share = numbers["histogram"]["busiest_quarter"]
    return share >= 0.5, f"{share:.0%} of the kept λ in the busiest quarter of the square"


def _smooth(numbers):
    ao = numbers["ao"]
    alone, best = ao["total_variation"], ao["unets"]
    return alone < 0 < best, f"total variation alone {alone:+.2f} dB, best quarter {best:+.2f} dB (U-Nets)".replace("-", "−")


def _pairs(numbers):
    holds, told = True, []
    for pair in numbers["pairs"]:
        error = math.sqrt(pair["pixels"]) * 10 ** (-min(pair["psnr"]) / 20)
        apart, ratio = abs(pair["psnr"][0] - pair["psnr"][1]), pair["l2_distance"] / error
        holds &= apart <= 0.5 and ratio >= 0.5
        told.append(f"{apart:.2f} dB and {ratio:.2f} of the error apart")
    if not told:
        raise LookupError
    return holds, "; ".join(told)


def _parameters(numbers):
    ours = numbers["counted"]
    holds = all(abs(ours[name] / count - 1) < 0.02 for name, count in PAPERS.items())
    return holds, ", ".join(f"{name if name != 'unet' else 'U-Net'} {ours[name]:,}" for name in PAPERS)


def _third(numbers):
    ours = numbers["counted"]
    ratio = PAPERS_UNETS * ours["unet"] / ours["L"]
    return ratio >= 2.5, f"{PAPERS_UNETS * ours['unet'] / 1e6:.1f}M against {ours['L'] / 1e6:.1f}M: {ratio:.1f} times"


def _little_longer(numbers):
    table = numbers["table"]
    unets, large = table["csmri-unets"], table["csmri-L"]
    one = unets["training_seconds"] / unets["members"]
    ratio = large["training_seconds"] / one
    return ratio <= 2, f"{ratio:.2f} times one U-Net's time ({large['training_seconds']:.0f} s against {one:.0f} s)"


def _longer_with_width(numbers):
    times = [numbers["table"][f"csmri-{size}"]["training_seconds"] for size in SIZES]
    return times == sorted(times), " → ".join(f"{value:.0f}" for value in times) + " s from S to L"


def _quick(numbers):
    times = {name: numbers["table"][f"csmri-{name}"]["inference_seconds"] for name in ("unets", *SIZES)}
    ratio = max(times.values()) / min(times.values())
    named = ", ".join(f"{name if name != 'unets' else 'U-Net'} {1000 * value:.1f} ms" for name, value in times.items())
    return ratio <= 2 and max(times.values()) <= 0.2, named


def _first(by_task: dict[str, Any]) -> Any:
    """Of the first task that has it."""
    return next(by_task[task] for task in TASKS if task in by_task)


def _behind(task: str) -> Claim:
    return Claim(
        f"HyperRecon-L follows the U-Nets on every metric, over all of λ: {TASKS[task]}",
        "V-G",
        "fig5",
        "over the U-Nets' λ it is behind by at most 0.1 dB, .003 SSIM and 2 % of MAE and HFEN in the mean, and three times that"
        " at the worst λ",
        _follows(task),
    )


CLAIMS = (
    *(_behind(task) for task in TASKS),
    Claim(
        "The best λ for segmenting the reconstructions is about 0.25",
        "V-G",
        "dice",
        "the mean Dice score of HyperRecon-L is highest at a λ from 0.1 to 0.4",
        _best_dice,
    ),
    Claim(
        "One HyperRecon-L reaches the Dice score of the best of the U-Nets",
        "V-G",
        "dice",
        "its best is at most .003 below theirs",
        _dice_with_one,
    ),
    Claim(
        "U-Net and HyperRecon-L look alike at the same λ",
        "V-G",
        "fig6",
        "they differ by at most half of the U-Nets' error (root mean squares over test slices)",
        _alike,
    ),
    Claim(
        "More weight on MAE is blurrier, more on SSIM has more high frequencies",
        "V-G",
        "fig6",
        "the Laplacian's strength inside the head is higher at the last λ than at λ = 0",
        _rises("sharpness"),
    ),
    Claim(
        "More weight on SSIM accentuates contrast",
        "V-G",
        "fig6",
        "the standard deviation inside the head is higher at the last λ than at λ = 0",
        _rises("contrast"),
    ),
    Claim(
        "Some λ give no acceptable reconstruction even if solved for: with much total variation everything is smooth",
        "IV-C",
        "fig4",
        "the U-Net of total variation alone is worse than the zero-filled input, and the best quarter of the U-Nets is better",
        _smooth,
    ),
    Claim(
        "Hypernetworks of higher capacity approach the U-Nets' landscape",
        "V-H",
        "fig4",
        "the mean over the landscape's best quarter is nearer to the U-Nets' for L than for S, with UHS and with DHS",
        _capacity,
    ),
    Claim(
        "DHS is better than UHS at a given capacity",
        "V-H",
        "fig4",
        "the mean over the landscape's best quarter is higher for S, M and L",
        _dhs_helps,
    ),
    Claim(
        "DHS improves the large hypernetwork least",
        "V-H",
        "fig4",
        "the gain of L is below those of S and M",
        _least_for_large,
    ),
    Claim(
        "DHS trains on a part of the square of λ, which it finds by itself",
        "IV-C, V-H",
        "dhs",
        "in the last epoch half of the kept λ or more are in the busiest quarter of the histogram's bins (uniform: a quarter)",
        _concentrates,
    ),
    Claim(
        "Of 10,000 reconstructions of a slice, two from the best tenth are alike in PSNR and unlike in look",
        "V-H",
        "fig7",
        "for every slice shown the PSNRs are at most 0.5 dB apart and the images at least half as far from each other as the worse"
        " of them from the truth",
        _pairs,
    ),
    Claim(
        "Parameters: U-Net 149K, HyperRecon-S 744K, -M 4.9M, -L 19M",
        "V-B, Table 1",
        "table1",
        "our networks of these widths have as many, to 2 % (counted at the paper's size)",
        _parameters,
    ),
    Claim(
        "The largest HyperRecon has a third of the parameters of all U-Nets together",
        "VI, Table 1",
        "table1",
        "361 U-Nets have 2.5 times as many or more (counted at the paper's size)",
        _third,
    ),
    Claim(
        "HyperRecon-L takes only slightly longer to train than one U-Net (the paper: 7 h against 4 h)",
        "VI, Table 1",
        "table1",
        "it takes at most twice the time, steps being equal; of U-Nets trained together one has its share",
        _little_longer,
    ),
    Claim(
        "Training takes longer the wider the hypernetwork (5, 6, 7 h)",
        "Table 1",
        "table1",
        "the times rise from S to M to L",
        _longer_with_width,
    ),
    Claim(
        "All networks reconstruct equally fast, in about 0.2 s",
        "Table 1",
        "table1",
        "one reconstruction takes at most 0.2 s, and none of the networks twice as long as another",
        _quick,
    ),
)

BEYOND = (
    (
        "It works on two collected data sets, brains (ABIDE) and knees (fastMRI)",
        "V-A",
        "fig3",
        "Neither may be distributed; the images here are made. bin.prepare reads both for those who have them.",
    ),
    (
        "Matched scales of the losses improve the result",
        "I, IV-D",
        "fig3",
        "The paper shows no numbers for it, and all runs here have matched scales.",
    ),
)
