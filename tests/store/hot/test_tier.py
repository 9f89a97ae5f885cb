"""The hot tier: what it does, on every backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError

from llmcache import backends
from llmcache.store.hot import tier as hot
from tests.support.backends import ALL_HOT_TIERS, Backend, backend_parameters
from tests.support.patience import KEY, OTHER_KEY

pytestmark = pytest.mark.django_db


# What it does, on every backend


@pytest.mark.parametrize(
    "backend", backend_parameters(["default"], ALL_HOT_TIERS[1:]), indirect=True
)
class TestNames:
    def test_of_two_who_add_one_is_first(self, backend: Backend) -> None:
        assert hot.add("a-name", b"mine", 60)
        assert not hot.add("a-name", b"yours", 60)
        assert hot.values(["a-name", "another"]) == {"a-name": b"mine"}

    def test_what_is_put_replaces_what_was_there(self, backend: Backend) -> None:
        hot.put("a-name", b"old", 60)
        hot.put("a-name", b"new", 60)
        assert hot.values(["a-name"]) == {"a-name": b"new"}

    def test_what_is_touched_lives_on(self, backend: Backend) -> None:
        hot.put("a-name", b"value", 1)
        assert hot.touch("a-name", 60)
        assert not hot.touch("another", 60)
        time.sleep(1.1)
        assert hot.values(["a-name"])

    def test_what_is_dropped_is_gone(self, backend: Backend) -> None:
        hot.put("a-name", b"value", 60)
        hot.put("another", b"value", 60)
        hot.drop(["a-name", "a-third"])
        assert list(hot.values(["a-name", "another"])) == ["another"]

    def test_copies_that_the_backend_refuses_leave_no_older_ones(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hot.write_many({KEY: (b"old", None), OTHER_KEY: (b"old", None)})
        refuses = lambda cache, named, timeout: [*named][:1]  # noqa: E731
        monkeypatch.setattr(type(hot.backend()), "set_many", refuses)
        hot.write_many({KEY: (b"new", None), OTHER_KEY: (b"new", None)})
        assert hot.read_many([KEY, OTHER_KEY]) == {OTHER_KEY: b"old"}

    def test_it_can_be_tried(self, backend: Backend) -> None:
        hot.probe()

    def test_it_is_shared_unless_it_is_a_database(self, backend: Backend) -> None:
        assert hot.is_shared() is (backend.cache != "database")


@pytest.mark.parametrize("alias", [None, "default"])
def test_without_a_hot_tier_nothing_is_kept(settings: Any, alias: str | None) -> None:
    settings.LLMCACHE = {"CACHE": alias}
    hot.put("a-name", b"value", 60)
    assert hot.add("a-name", b"value", 60) is False
    assert hot.touch("a-name", 60) is False
    assert hot.values(["a-name"]) == {}
    assert hot.is_shared() is False
    hot.drop(["a-name"])
    hot.probe()


def test_an_alias_that_is_not_there_is_an_error(settings: Any) -> None:
    settings.LLMCACHE = {"CACHE": "nowhere"}
    for _ in range(2):
        with pytest.raises(InvalidCacheBackendError):
            hot.read(KEY)


def test_a_tier_that_forgets_at_once_is_found_out(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use()
    monkeypatch.setattr(backends.RedisCache, "get_many", lambda cache, names: {})
    with pytest.raises(hot.WrongReply):
        hot.probe()
