"""`LLMCache` for LangChain: its standard suites for caches, unchanged."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from llmcache.contrib.langchain import LLMCache

pytestmark = pytest.mark.django_db(transaction=True)


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> LLMCache:
        return LLMCache(namespace="support")


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> LLMCache:
        return LLMCache(namespace="support")
