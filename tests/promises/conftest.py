"""What the tests of this room share."""

from __future__ import annotations

import pytest


@pytest.fixture
def async_rows(transactional_db: None) -> None:
    """Rows that other threads see."""
