"""Signals: whatever a receiver does, the call goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import Signal

from llmcache import signals
from llmcache.signals import asend, send

ALL = [
    signals.call_answered,
    signals.entries_invalidated,
    signals.entries_expired,
    signals.tier_failed,
    signals.tier_changed,
    signals.entry_refused,
]


@pytest.fixture
def signal() -> Signal:
    return Signal()


@pytest.fixture
def received(signal: Signal) -> Iterator[list[Any]]:
    """What a receiver at the end of the line was given."""
    seen: list[Any] = []

    def receive(sender: Any, **arguments: Any) -> None:
        arguments.pop("signal")
        seen.append((sender, arguments))

    signal.connect(receive, weak=False)
    yield seen
    signal.disconnect(receive)


def fail(sender: Any, **arguments: Any) -> None:
    raise RuntimeError("a receiver failed")


async def afail(sender: Any, **arguments: Any) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("an asynchronous receiver failed")


def test_each_signal_is_of_its_own() -> None:
    assert len(set(map(id, ALL))) == len(ALL)


@pytest.fixture(params=[fail, afail])
def failing(request: pytest.FixtureRequest, signal: Signal) -> Iterator[Any]:
    """A receiver that fails, called before the others."""
    signal.connect(request.param)
    yield request.param
    signal.disconnect(request.param)


@pytest.fixture
def areceived(signal: Signal) -> Iterator[list[Any]]:
    """What an asynchronous receiver was given."""
    seen: list[Any] = []

    async def receive(sender: Any, **arguments: Any) -> None:
        await asyncio.sleep(0)
        arguments.pop("signal")
        seen.append((sender, arguments))

    signal.connect(receive, weak=False)
    yield seen
    signal.disconnect(receive)


def test_receivers_are_told(signal: Signal, received: list[Any]) -> None:
    send(signal, "sender", key="a", tier="hot")
    assert received == [("sender", {"key": "a", "tier": "hot"})]


async def test_receivers_are_told_by_a_coroutine(signal: Signal, received: list[Any]) -> None:
    await asend(signal, "sender", key="a")
    assert received == [("sender", {"key": "a"})]


def test_asynchronous_receivers_are_told_by_a_synchronous_caller(
    signal: Signal, areceived: list[Any]
) -> None:
    send(signal, "sender", key="a")
    assert areceived == [("sender", {"key": "a"})]


async def test_asynchronous_receivers_are_awaited(signal: Signal, areceived: list[Any]) -> None:
    await asend(signal, "sender", key="a")
    assert areceived == [("sender", {"key": "a"})]


def test_a_failing_receiver_does_no_harm(
    signal: Signal, failing: Any, received: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    send(signal, "sender", key="a")
    assert received == [("sender", {"key": "a"})]
    assert "receiver failed" in caplog.text


async def test_a_failing_receiver_does_no_harm_to_a_coroutine(
    signal: Signal, failing: Any, received: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    await asend(signal, "sender", key="a")
    assert received == [("sender", {"key": "a"})]
    assert "receiver failed" in caplog.text


async def test_asynchronous_receivers_do_no_harm_where_nobody_can_await_them(
    signal: Signal, areceived: list[Any], received: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As when a synchronous client is called on an event loop: a notebook, for instance."""
    with caplog.at_level(logging.WARNING, "llmcache"):
        send(signal, "sender", key="a")
    assert received == [("sender", {"key": "a"})]
    assert "a signal did not reach all of its receivers" in caplog.text


@pytest.mark.parametrize("name", ["send_robust", "asend_robust"])
async def test_nothing_that_goes_wrong_reaches_the_caller(
    signal: Signal, received: list[Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the interpreter shuts down, and has no more threads for receivers."""
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "llmcache"):
        patch.setattr(signal, name, fail)
        if name == "send_robust":
            send(signal, "sender")
        else:
            await asend(signal, "sender")
    assert "a signal did not reach all of its receivers" in caplog.text


def test_nothing_is_sent_when_nobody_listens(
    signal: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "send_robust", pytest.fail)
    send(signal, "sender", key="a")
