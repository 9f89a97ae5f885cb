"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmcache import signals
from llmcache.outcomes import Call, Tier
from tests.support.rules import FakeRequest


@pytest.fixture
def refused() -> Iterator[list[Any]]:
    seen: list[Any] = []

    def receive(sender: Any, key: str, tier: Tier, error: Exception, **_: Any) -> None:
        seen.append((key, tier, error))

    signals.entry_refused.connect(receive)
    yield seen
    signals.entry_refused.disconnect(receive)


@pytest.fixture
def answered() -> Iterator[list[Call]]:
    """What the signal `call_answered` told."""
    seen: list[Call] = []

    def receive(sender: Any, call: Call, **_: Any) -> None:
        assert issubclass(sender, FakeRequest)
        seen.append(call)

    signals.call_answered.connect(receive)
    yield seen
    signals.call_answered.disconnect(receive)
