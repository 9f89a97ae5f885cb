"""What is written of one call: when it expires, and how long it is kept for stale answers."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

import llmcache
from llmcache.store.records import JITTER, expiry
from llmcache.store.rows import tier as durable


class TestExpiry:
    def test_is_never_later_than_asked_for_and_spread_over_a_twentieth(self) -> None:
        before = time.time()
        shares = [(moment - before) / 3600 for _ in range(500) if (moment := expiry(3600))]
        assert all(1 - JITTER <= share < 1 + 1e-3 for share in shares)
        assert min(shares) < 0.96
        assert max(shares) > 0.99

    @pytest.mark.parametrize("ttl", [0.5, 1, 59.9])
    def test_is_exact_below_a_minute(self, ttl: float) -> None:
        before = time.time()
        moment = expiry(ttl)
        assert moment is not None
        assert before + ttl <= moment <= time.time() + ttl

    def test_there_may_be_none(self) -> None:
        assert expiry(None) is None


@pytest.mark.django_db(transaction=True)
class TestStaleUntil:
    @pytest.mark.parametrize(
        ("windows", "seconds"),
        [
            ({}, 0),
            ({"stale_while_revalidate": 60}, 60),
            ({"stale_if_error": timedelta(hours=1)}, 3600),
            ({"stale_while_revalidate": 60, "stale_if_error": 3600}, 3600),
            ({"stale_while_revalidate": 3600, "stale_if_error": 60}, 3600),
        ],
        ids=str,
    )
    def test_is_the_longer_window_after_the_expiry(self, windows: Any, seconds: int) -> None:
        @llmcache.cached(ttl=30, **windows)
        def ask() -> int:
            return 1

        ask()
        row: Any = durable.entries().get()
        assert row.stale_until - row.expires_at == timedelta(seconds=seconds)

    def test_what_never_expires_is_never_stale(self) -> None:
        @llmcache.cached(ttl=None, stale_if_error=60)
        def ask() -> int:
            return 1

        ask()
        row: Any = durable.entries().get()
        assert (row.expires_at, row.stale_until) == (None, None)

    def test_the_settings_count_where_nothing_is_said(self, settings: Any) -> None:
        settings.LLMCACHE = {"CACHE": None, "STALE_IF_ERROR": 120}

        @llmcache.cached(ttl=30)
        def ask() -> int:
            return 1

        ask()
        row: Any = durable.entries().get()
        assert row.stale_until - row.expires_at == timedelta(seconds=120)
