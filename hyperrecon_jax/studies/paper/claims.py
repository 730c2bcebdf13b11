"""Each claim of the paper, and its verdict as a pure function of the report's numbers (`numbers.py`).

A claim holds or does not hold by a criterion that is stated with it. Where its numbers are missing, or no scale can test
it, it is "not tested at this scale". No result is written in this module.
"""

from typing import NamedTuple

from hyperrecon_jax.studies.paper import criteria
from hyperrecon_jax.studies.paper.criteria import Criterion
from hyperrecon_jax.studies.paper.numbers import Numbers
from hyperrecon_jax.studies.paper.scale import TASKS

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested at this scale"


class Verdict(NamedTuple):
    """Whether a claim holds, and why."""

    claim: str  # in our words
    section: str  # of the paper
    figure: str  # the part of the report that shows it, of `scale.FIGURES`
    verdict: str
    number: str  # what the verdict rests on
    why: str  # the criterion, or why the claim was not tested

    @property
    def sentence(self) -> str:
        """What the verdict rests on, as a sentence."""
        return f"{self.number[:1].upper()}{self.number[1:]}." if self.number else ""


class Claim(NamedTuple):
    """A claim and its criterion."""

    claim: str
    section: str
    figure: str
    condition: str  # the criterion in words
    criterion: Criterion


def judge(numbers: Numbers) -> list[Verdict]:
    """The verdicts of all claims, by the numbers of `numbers.gather`."""
    verdicts = []
    for claim, section, figure, condition, criterion in CLAIMS:
        try:
            holds, number = criterion(numbers)
            verdict, why = (HOLDS if holds else FAILS), f"Holds if {condition}."
        except LookupError:
            verdict, number = UNTESTED, ""
            why = f"Its runs are not there. It would hold if {condition}."
        verdicts.append(Verdict(claim, section, figure, verdict, number, why))
    return verdicts + [Verdict(claim, section, figure, UNTESTED, "", why) for claim, section, figure, why in UNTESTABLE]


def _matches_unets(task: str) -> Claim:
    return Claim(
        f"HyperRecon-L comes up to the U-Nets on every metric, over all of λ: {TASKS[task]}",
        "V-G",
        "fig3" if task.startswith("csmri") else "fig5",
        "over the U-Nets' λ it is behind by at most 0.1 dB, .003 SSIM and 2 % of MAE and HFEN in the mean, and"
        " three times that at the worst λ",
        criteria.matches_unets(task),
    )


CLAIMS = (
    *(_matches_unets(task) for task in TASKS),
    Claim(
        "The best λ for segmenting the reconstructions is about 0.25",
        "V-G",
        "dice",
        "the mean Dice score of HyperRecon-L is highest at a λ from 0.1 to 0.4",
        criteria.best_dice_lambda,
    ),
    Claim(
        "One HyperRecon-L reaches the Dice score of the best of the U-Nets",
        "V-G",
        "dice",
        "its best is at most .003 below theirs",
        criteria.dice_matches_unets,
    ),
    Claim(
        "U-Net and HyperRecon-L look alike at the same λ",
        "V-G",
        "fig6",
        "they differ by at most half of the U-Nets' error (root mean squares over test slices)",
        criteria.looks_alike,
    ),
    Claim(
        "More weight on MAE is blurrier, more on SSIM has more high frequencies",
        "V-G",
        "fig6",
        "the Laplacian's strength inside the head is higher at the last λ than at λ = 0",
        criteria.rises_with_lambda("sharpness"),
    ),
    Claim(
        "More weight on SSIM accentuates contrast",
        "V-G",
        "fig6",
        "the standard deviation inside the head is higher at the last λ than at λ = 0",
        criteria.rises_with_lambda("contrast"),
    ),
    Claim(
        "Some λ give no acceptable reconstruction even if solved for: with much total variation everything is smooth",
        "IV-C",
        "fig4",
        "the U-Net of total variation alone is worse than the zero-filled input, and the best quarter of the U-Nets"
        " is better",
        criteria.total_variation_fails,
    ),
    Claim(
        "Hypernetworks of higher capacity approach the U-Nets' landscape",
        "V-H",
        "fig4",
        "the mean over the landscape's best quarter is higher for L than for S, and for L at most 0.5 dB below the U-Nets',"
        " with UHS and with DHS",
        criteria.capacity_helps,
    ),
    Claim(
        "DHS is better than UHS at a given capacity",
        "V-H",
        "fig4",
        "the mean over the landscape's best quarter is higher for S, M and L",
        criteria.dhs_helps,
    ),
    Claim(
        "DHS improves the large hypernetwork least",
        "V-H",
        "fig4",
        "the gain of L is below those of S and M",
        criteria.dhs_helps_large_least,
    ),
    Claim(
        "DHS trains on a part of the square of λ, which it finds by itself",
        "IV-C, V-H",
        "dhs",
        "in the second half of training half of the kept λ or more are in the busiest quarter of the square"
        " (uniform: a quarter)",
        criteria.dhs_concentrates,
    ),
    Claim(
        "Of 10,000 reconstructions of a slice, two from the best tenth are alike in PSNR and unlike in look",
        "V-H",
        "fig7",
        "for every slice shown the PSNRs are at most 0.5 dB apart and the images at least half as far from each"
        " other as the worse of them from the truth",
        criteria.pairs_differ,
    ),
    Claim(
        "Parameters: U-Net 149K, HyperRecon-S 744K, -M 4.9M, -L 19M",
        "V-B, Table 1",
        "table1",
        "our networks of these widths have as many, to 2 % (counted at the paper's size)",
        criteria.parameters_agree,
    ),
    Claim(
        "The largest HyperRecon has a third of the parameters of all U-Nets together",
        "VI, Table 1",
        "table1",
        "361 U-Nets have 2.5 times as many or more (counted at the paper's size)",
        criteria.third_of_parameters,
    ),
    Claim(
        "HyperRecon-L takes only slightly longer to train than one U-Net (the paper: 7 h against 4 h)",
        "VI, Table 1",
        "table1",
        "a step takes at most twice the time of a U-Net's; of U-Nets trained together one has its share",
        criteria.trains_little_longer,
    ),
    Claim(
        "Training takes longer the wider the hypernetwork (5, 6, 7 h)",
        "Table 1",
        "table1",
        "the times of a step rise from S to M to L",
        criteria.trains_longer_with_width,
    ),
    Claim(
        "All networks reconstruct equally fast, in about 0.2 s",
        "Table 1",
        "table1",
        "one reconstruction takes at most 0.2 s, and none of the networks twice as long as another",
        criteria.reconstructs_quickly,
    ),
)

UNTESTABLE = (
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
