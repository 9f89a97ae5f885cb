"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.decorated import asked, trouble


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    yield
    asked.clear()
    trouble.clear()
