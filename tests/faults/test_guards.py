"""No guard stands for nothing: without it, a test fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.extent import extent
from tests.faults.guards import GUARDS, ROOT, Guard

names = [guard.name for guard in GUARDS]


@pytest.mark.parametrize("guard", GUARDS, ids=names)
def test_it_stands_where_it_is_said_to(guard: Guard) -> None:
    assert (ROOT / guard.path).read_text().count(guard.text) == 1
    for test in guard.tests:
        path, _, function = test.partition("::")
        assert f"def {function}(" in (ROOT / path).read_text()


# (each takes servers of its own, and some seconds)
@pytest.mark.parametrize("guard", extent(GUARDS[1:2], GUARDS), ids=extent(names[1:2], names))
def test_without_it_a_test_fails(guard: Guard, tmp_path: Path) -> None:
    fails = guard.fails_without(tmp_path)
    report.record(
        "guards", name=guard.name, protects=guard.protects, tests=guard.tests, fails=fails
    )
    assert fails
