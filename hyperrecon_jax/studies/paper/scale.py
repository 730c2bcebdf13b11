"""A scale: the paper's experiments at one size. `pieces.py` has the three scales.

The report finds a piece by its name:

    segmenter                       the network behind the Dice score
    TASK-L, TASK-M, TASK-S          HyperRecon, supervised; TASK is one of `TASKS`
    TASK-unets                      the U-Nets that it is compared with
    ao-SIZE-SAMPLING-SEED           HyperRecon without ground truth, such as ao-L-dhs-0
    ao-unets                        the U-Nets that it is compared with
"""

from typing import NamedTuple

from hyperrecon_jax.studies.plan import Piece

FIGURES = {
    "table1": "Table 1: parameters and times",
    "fig3": "Fig. 3: supervised CS-MRI over λ",
    "dice": "Dice over λ (Fig. 3, Sec. V-E.1, V-G)",
    "fig4": "Fig. 4: landscapes without ground truth",
    "dhs": "What DHS trains on (Fig. 4, top right)",
    "fig5": "Fig. 5: three supervised tasks over λ",
    "fig6": "Fig. 6: slices over λ",
    "fig7": "Fig. 7: two good reconstructions that differ",
}
TASKS = {"csmri": "8-fold CS-MRI", "csmri4x": "4-fold CS-MRI", "denoising": "denoising", "superres": "super-resolution"}
SIZES, SAMPLINGS = ("S", "M", "L"), ("uhs", "dhs")
SEGMENTER, AO_UNETS, AO_LARGE = "segmenter", "ao-unets", "ao-L-dhs-0"


class Scale(NamedTuple):
    """A size at which the paper is reproduced."""

    name: str
    about: str
    machine: str  # the machine on which the estimates were measured
    pieces: tuple[Piece, ...]  # in the order of work; their labels are of `FIGURES`
    rate: float  # reconstructions per second, roughly
    preparation: float = 0.0  # seconds that the data take the first time, roughly
    notes: tuple[str, ...] = ()  # how it differs from the paper

    @property
    def tasks(self) -> list[str]:
        """The supervised tasks that it has."""
        return [task for task in TASKS if any(piece.name == f"{task}-L" for piece in self.pieces)]

    @property
    def seeds(self) -> int:
        """The number of runs of each network without ground truth."""
        return sum(piece.name.startswith("ao-L-dhs-") for piece in self.pieces)
