"""The verdict of each claim, computed from the report's numbers."""

from typing import NamedTuple

from hyperrecon_jax.studies.paper.claims import CLAIMS
from hyperrecon_jax.studies.paper.numbers import Numbers

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested at this scale"
UNTESTABLE = (  # claim, section, figure, why
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


class Verdict(NamedTuple):
    """Whether a claim holds, and why."""

    claim: str  # in our words
    section: str  # section of the paper
    figure: str  # the part of the report that shows it, of `scale.FIGURES`
    verdict: str
    number: str  # the numbers behind the verdict
    why: str  # the criterion, or why the claim was not tested

    @property
    def sentence(self) -> str:
        """The numbers behind the verdict, as a sentence."""
        return f"{self.number[:1].upper()}{self.number[1:]}." if self.number else ""


def judge(numbers: Numbers) -> list[Verdict]:
    """The verdicts of all claims, by the numbers of `numbers.gather`. A claim whose numbers are missing is untested."""
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
