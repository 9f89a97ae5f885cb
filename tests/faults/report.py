"""The figures of a run, and docs/faults.md, which is made of those of a long one.

The tests `record` what they measured as lines of JSON in the directory that ``LLMCACHE_FIGURES``
names; without it, nothing is written down.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def record(kind: str, **figures: Any) -> None:
    """Write down one line of the table `kind`."""
    directory = os.environ.get("LLMCACHE_FIGURES")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with (Path(directory) / f"{kind}.jsonl").open("a") as lines:
            lines.write(json.dumps(figures) + "\n")


def percentile(values: list[float], percent: float) -> float:
    """The smallest of `values` that so many percent of them do not exceed; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
