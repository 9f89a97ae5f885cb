"""The command: ``python -m tests.faults``, the long version of the tests here, and the page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.faults import page

ROOT: Final = Path(__file__).parents[2]
FIGURES: Final = ROOT / "var" / "faults"
# Some of the long tests take that long, which in the short version would mean that they hang.
LONGEST_TEST_SECONDS: Final = 1800


def main() -> int:
    shutil.rmtree(FIGURES, ignore_errors=True)
    options = ["-v"]
    for limit in ("timeout", "faulthandler_timeout"):
        options += ["-o", f"{limit}={LONGEST_TEST_SECONDS}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/faults"],
        cwd=ROOT,
        env={**os.environ, "LLMCACHE_LONG": "1", "LLMCACHE_FIGURES": str(FIGURES)},
    )
    page.write(FIGURES, ROOT / "docs" / "faults.md")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
