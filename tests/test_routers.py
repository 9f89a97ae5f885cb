"""The router: the tables of llmcache on their database, and no word about others."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import router
from django.test import override_settings

from llmcache.models import CacheEntry, EntryTag
from llmcache.routers import LLMCacheRouter

ROUTERS = ["llmcache.routers.LLMCacheRouter"]


@pytest.fixture
def own_database(settings: Any) -> None:
    settings.DATABASE_ROUTERS = ROUTERS
    settings.LLMCACHE = {"CACHE": None, "DATABASE": "llm"}


@pytest.mark.usefixtures("own_database")
class TestWithADatabase:
    @pytest.mark.parametrize("model", [CacheEntry, EntryTag])
    def test_our_tables_are_there(self, model: Any) -> None:
        assert router.db_for_read(model) == "llm"
        assert router.db_for_write(model) == "llm"
        assert router.allow_migrate_model("llm", model)
        assert not router.allow_migrate_model("default", model)

    def test_others_are_where_they_were(self) -> None:
        assert router.db_for_read(User) == "default"
        assert router.db_for_write(User) == "default"
        assert router.allow_migrate_model("default", User)
        assert LLMCacheRouter().allow_migrate("llm", "auth", model_name="user") is None

    def test_it_follows_the_setting(self) -> None:
        with override_settings(LLMCACHE={"DATABASE": "elsewhere"}):
            assert router.db_for_read(CacheEntry) == "elsewhere"
            assert router.allow_migrate_model("elsewhere", CacheEntry)
            assert not router.allow_migrate_model("llm", CacheEntry)


def test_without_a_database_it_says_nothing(settings: Any) -> None:
    settings.LLMCACHE = {"DATABASE": None}
    ours = LLMCacheRouter()
    assert ours.db_for_read(CacheEntry) is None
    assert ours.db_for_write(CacheEntry) is None
    assert ours.allow_migrate("default", "llmcache") is None
