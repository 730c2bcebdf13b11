"""The criteria of the paper's claims: numbers of the report (`numbers.py`) -> whether one holds, and what that rests on.

Each raises LookupError where a number is not there.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hyperrecon_jax.studies.paper.numbers import PAPERS_UNETS, Numbers
from hyperrecon_jax.studies.paper.plan import SIZES, TASKS

Tell = Callable[[Numbers], tuple[bool, str]]
# What HyperRecon-L may be behind the U-Nets in the mean over lambda, at the worst lambda three times as much. Errors: as a
# part of the U-Nets' own.
TOLERANCE = {"psnr": 0.1, "ssim": 0.003, "mae": 0.02, "hfen": 0.02}
AT_WORST = 3
PAPERS = {"unet": 149_409, "S": 744_000, "M": 4_900_000, "L": 19_000_000}


def comes_up(task: str) -> Tell:
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
            mean, worst = (shown((100 if relative else 1) * value, form) for value in (gaps.mean(), gaps.min()))
            told.append(f"{name.upper()} {mean}{unit} (worst {worst})")
        return holds, ", ".join(told)

    return tell


def best_dice(numbers):
    lam, values = (np.array(_first(numbers["dice"])[key]) for key in ("lambdas", "values"))
    best = lam[values.argmax()]
    text = f"best Dice {values.max():.4f} at λ = {best:.2f}; {values.min():.4f} at the worst λ"
    return bool(0.1 <= best <= 0.4), text


def dice_with_one(numbers):
    dice = _first(numbers["dice"])
    ours, theirs = max(dice["values"]), max(dice["unets"])
    return ours >= theirs - 0.003, f"{ours:.4f} against {theirs:.4f} of the best U-Net"


def rises(what: str) -> Tell:
    """Whether a look of HyperRecon rises from the first lambda to the last."""

    def tell(numbers):
        look = _first(numbers["look"])
        unets, ours = look[what]
        first, last = look["lambdas"][0], look["lambdas"][-1]
        text = f"HyperRecon-L {ours[0]:.3f} at λ = {first:g} → {ours[-1]:.3f} at {last:g}"
        return ours[-1] > ours[0], f"{text}; U-Nets {unets[0]:.3f} → {unets[-1]:.3f} (truth: 1)"

    return tell


def alike(numbers):
    look = _first(numbers["look"])
    ratio = np.mean(look["distance"]) / np.mean(look["error"])
    return bool(ratio <= 0.5), f"they differ by {ratio:.2f} of the U-Nets' own error"


def capacity(numbers):
    ao = numbers["ao"]
    fixed, told, holds = ao["unets"], [], True
    for sampling in ("uhs", "dhs"):
        means = [float(np.mean(ao[sampling][size])) for size in SIZES]
        holds &= means[-1] > means[0] and means[-1] >= fixed - 0.5
        told.append(f"{sampling.upper()} " + " → ".join(shown(value) for value in means))
    return holds, f"{', '.join(told)} dB from S to L; U-Nets {shown(fixed)} dB"


def _gains(numbers):
    return [float(np.mean(numbers["ao"]["dhs"][size]) - np.mean(numbers["ao"]["uhs"][size])) for size in SIZES]


def _gains_told(numbers, gains):
    seeds = len(numbers["ao"]["dhs"]["L"])
    each = ", ".join(f"{size} {shown(gain, '+.2f')}" for size, gain in zip(SIZES, gains, strict=True))
    return f"{each} dB, mean of {seeds} {'seed' if seeds == 1 else 'seeds'}"


def dhs_helps(numbers):
    gains = _gains(numbers)
    return min(gains) > 0, _gains_told(numbers, gains)


def least_for_large(numbers):
    gains = _gains(numbers)
    return gains[-1] < min(gains[:-1]), _gains_told(numbers, gains)


def concentrates(numbers):
    share = numbers["histogram"]["busiest_quarter"]
    return share >= 0.5, f"{share:.0%} of the kept λ in the busiest quarter of the square"


def smooth(numbers):
    ao = numbers["ao"]
    alone, best = ao["total_variation"], ao["unets"]
    told = f"total variation alone {shown(alone, '+.2f')} dB, best quarter {shown(best, '+.2f')} dB (U-Nets)"
    return alone < 0 < best, told


def pairs(numbers):
    holds, told = True, []
    for pair in numbers["pairs"]:
        error = math.sqrt(pair["pixels"]) * 10 ** (-min(pair["psnr"]) / 20)
        apart, ratio = abs(pair["psnr"][0] - pair["psnr"][1]), pair["l2_distance"] / error
        holds &= apart <= 0.5 and ratio >= 0.5
        told.append(f"{apart:.2f} dB and {ratio:.2f} of the error apart")
    if not told:
        raise LookupError
    return holds, "; ".join(told)


def parameters(numbers):
    ours = numbers["counted"]
    holds = all(abs(ours[name] / count - 1) < 0.02 for name, count in PAPERS.items())
    return holds, ", ".join(f"{name if name != 'unet' else 'U-Net'} {ours[name]:,}" for name in PAPERS)


def third(numbers):
    ours = numbers["counted"]
    ratio = PAPERS_UNETS * ours["unet"] / ours["L"]
    return ratio >= 2.5, f"{PAPERS_UNETS * ours['unet'] / 1e6:.1f}M against {ours['L'] / 1e6:.1f}M: {ratio:.1f} times"


def little_longer(numbers):
    unets, large = numbers["table"]["csmri-unets"], numbers["table"]["csmri-L"]
    one, ours = unets["step_seconds"] / unets["members"], large["step_seconds"]
    return ours <= 2 * one, f"{ours / one:.2f} times one U-Net's ({1000 * ours:.0f} ms a step against {1000 * one:.0f} ms)"


def longer_with_width(numbers):
    times = [numbers["table"][f"csmri-{size}"]["step_seconds"] for size in SIZES]
    return times == sorted(times), " → ".join(f"{1000 * value:.1f}" for value in times) + " ms a step from S to L"


def quick(numbers):
    times = {name: numbers["table"][f"csmri-{name}"]["inference_seconds"] for name in ("unets", *SIZES)}
    ratio = max(times.values()) / min(times.values())
    named = ", ".join(f"{name if name != 'unets' else 'U-Net'} {1000 * value:.1f} ms" for name, value in times.items())
    return ratio <= 2 and max(times.values()) <= 0.2, named


def _first(by_task: dict[str, Any]) -> Any:
    """Of the first task that has it."""
    return next(by_task[task] for task in TASKS if task in by_task)


def shown(value: float, form: str = ".2f") -> str:
    """A number with a minus sign, which a hyphen is not."""
    return format(value, form).replace("-", "−")
