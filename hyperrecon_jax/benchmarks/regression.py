"""Compare the rows of two runs of the benchmark on one machine.

Each row has an interval of its median (`timing.percentile_interval`). The ratio of two medians, new over old, then lies
between the smallest and the largest ratio of the two intervals. A row is slower or faster only if this whole interval is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hyperrecon_jax.benchmarks.timing import Row
from hyperrecon_jax.runtime.errors import InputError

KEYS = ("suite", "case", "implementation")


class Change(NamedTuple):
    """A row of both runs."""

    name: str
    ratio: float  # of the medians, new over old
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """In one word."""
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "same"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows that `--json` wrote.

    Raises:
        InputError: if the file cannot be read, or was written before rows had intervals.
    """
    try:
        rows = json.loads(path.read_text())
        if isinstance(rows, list) and all({*KEYS, "seconds", "low", "high"} <= set(row) for row in rows):
            return rows
    except (OSError, ValueError, TypeError):
        pass
    raise InputError(f"--compare must be a file that `bench --json` of this version wrote, got {path}.")


def find_changes(old: Sequence[dict[str, Any]], new: Sequence[Row]) -> list[Change]:
    """Return the change of each new row that the old ones have, too."""
    before = {tuple(row[key] for key in KEYS): row for row in old}
    changes = []
    for row in new:
        match = before.get((row.suite, row.case, row.implementation))
        if match is not None:
            ratio = row.seconds / match["seconds"]
            changes.append(
                Change(f"{row.case}, {row.implementation}", ratio, row.low / match["high"], row.high / match["low"])
            )
    return changes


def change_table(changes: Sequence[Change]) -> str:
    """Format the changes as text."""
    width = max((len(change.name) for change in changes), default=0) + 2
    lines = [f"{'new over old':<{width}}{'ratio':>6}  interval"]
    lines += [f"{c.name:<{width}}{c.ratio:6.2f}  {c.low:.2f} to {c.high:.2f}  {c.verdict}" for c in changes]
    return "\n".join(lines)
