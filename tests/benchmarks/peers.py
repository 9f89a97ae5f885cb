"""What is measured beside llmcache. Each row uses its library as its own guide shows."""

from __future__ import annotations

import functools
import inspect
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import instructor
import redis
from instructor.cache import AutoCache, BaseCache, DiskCache

from tests.benchmarks.question import MODEL
from tests.benchmarks.rows import Ask, Bench, decorated, row
from tests.support.servers import RedisServer

NAME = MODEL.partition("/")[2]

# instructor


@row("instructor: AutoCache, in the process")
def auto_cache(bench: Bench) -> Ask:
    return asking_instructor(bench, AutoCache())


@row("instructor: AutoCache, in the process, async")
def auto_cache_async(bench: Bench) -> Ask:
    return asking_instructor(bench, AutoCache(), async_client=True)


@row("instructor: DiskCache", "diskcache")
def disk_cache(bench: Bench) -> Ask:
    directory = bench.directory / f"diskcache-{bench.question.name}"
    return asking_instructor(bench, DiskCache(directory=str(directory)))


@row("instructor: an adapter for Redis", RedisServer)
def redis_adapter(bench: Bench) -> Ask:
    return asking_instructor(bench, RedisAdapter(bench.urls[RedisServer]))


def asking_instructor(bench: Bench, cache: BaseCache, **arguments: Any) -> Ask:
    return bench.asking(
        instructor.from_provider, cache=cache, cache_namespace="benchmarks", **arguments
    )


class RedisAdapter(BaseCache):
    """The Redis cache of instructor's guide to caching."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    def get(self, key: str) -> Any | None:
        return self.redis.get(key)

    def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        self.redis.set(key, value, ex=ttl)


# The three decorators of instructor's guide


@row("by hand: functools.cache")
def by_hand_functools(bench: Bench) -> Ask:
    return decorated(bench, functools.cache)


@row("by hand: a decorator over diskcache", "diskcache")
def by_hand_diskcache(bench: Bench) -> Ask:
    import diskcache

    store = diskcache.Cache(str(bench.directory / f"by-hand-{bench.question.name}"))
    return decorated(bench, partial(remembering, store.get, store.set))


@row("by hand: a decorator over Redis", RedisServer)
def by_hand_redis(bench: Bench) -> Ask:
    client = redis.Redis.from_url(bench.urls[RedisServer])
    return decorated(bench, partial(remembering, client.get, client.set))


def remembering(get: Callable[[str], Any], put: Callable[[str, Any], Any], function: Any) -> Any:
    returns = inspect.signature(function).return_annotation

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        made = functools._make_key(args, kwargs, typed=False)
        key = f"{function.__qualname__}-{made}"
        if (found := get(key)) is not None:
            return returns.model_validate_json(found)
        answer = function(*args, **kwargs)
        put(key, answer.model_dump_json())
        return answer

    return wrapper


# LangChain


@row("LangChain: InMemoryCache", "langchain_openai")
def langchain_memory(bench: Bench) -> Ask:
    return partial(langchain(bench, _memory()).invoke, langchain_messages(bench))


@row("LangChain: InMemoryCache, async", "langchain_openai")
def langchain_memory_async(bench: Bench) -> Ask:
    return partial(langchain(bench, _memory()).ainvoke, langchain_messages(bench))


@row("LangChain: SQLiteCache", "langchain_openai", "langchain_community")
def langchain_sqlite(bench: Bench) -> Ask:
    from langchain_community.cache import SQLiteCache

    cache = SQLiteCache(str(bench.directory / f"langchain-{bench.question.name}.sqlite3"))
    return partial(langchain(bench, cache).invoke, langchain_messages(bench))


@row("LangChain: RedisCache", RedisServer, "langchain_openai", "langchain_community")
def langchain_redis(bench: Bench) -> Ask:
    from langchain_community.cache import RedisCache

    cache = RedisCache(redis.Redis.from_url(bench.urls[RedisServer]))
    return partial(langchain(bench, cache).invoke, langchain_messages(bench))


def _memory() -> Any:
    from langchain_core.caches import InMemoryCache

    return InMemoryCache()


def langchain(bench: Bench, cache: Any) -> Any:
    from langchain_openai import ChatOpenAI

    warnings.filterwarnings("ignore", module="langchain")
    model: Any = ChatOpenAI(
        model=NAME, base_url=bench.standin.url, api_key="any", cache=cache, stream_usage=False
    )
    return model.with_structured_output(bench.question.response_model)


def langchain_messages(bench: Bench) -> Any:
    return [(message["role"], message["content"]) for message in bench.question.messages]


# DSPy


@row("DSPy: memory and disk, no validation", "dspy")
def dspy(bench: Bench) -> Ask:
    return partial(_dspy(bench), **_dspy_question(bench))


@row("DSPy: memory and disk, no validation, async", "dspy")
def dspy_async(bench: Bench) -> Ask:
    return partial(_dspy(bench).acall, **_dspy_question(bench))


def _dspy(bench: Bench) -> Any:
    import dspy as library

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("dspy").setLevel(logging.ERROR)
    library.configure_cache(disk_cache_dir=str(bench.directory / "dspy"))
    return library.LM(MODEL, api_base=bench.standin.url, api_key="any")


def _dspy_question(bench: Bench) -> dict[str, Any]:
    question = bench.question
    return {"messages": question.messages, "response_format": question.response_model}


# LiteLLM


# (its workers belong to one event loop, and no cache is there on a second one)
@row("LiteLLM: its cache in the process, async", "litellm", "fastapi", only_small=True)
def litellm_async(bench: Bench) -> Ask:
    import litellm

    litellm.cache = litellm.Cache()
    arguments = {"api_base": bench.standin.url, "api_key": "any", "caching": True}
    litellm.completion(MODEL, bench.question.messages, **arguments)
    time.sleep(0.5)  # (it stores the answer on another thread)
    return partial(litellm.acompletion, MODEL, bench.question.messages, **arguments)
