"""What is measured: one function for each line of the table.

A row's function is called once. It gets everything ready, and returns the call to measure: a
function without arguments, or a coroutine function. What a row is answered with it has to keep
itself; the first call fills its cache, and no later one may reach the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import instructor
import redis
from pydantic import BaseModel

import llmcache
from llmcache.background import database
from project.standin.server import StandIn
from tests.benchmarks.question import MODEL, Question
from tests.benchmarks.settings import Urls
from tests.support.servers import MariaDBServer, PostgreSQLServer, RedisServer, Server

Ask: TypeAlias = Callable[[], Any]
# A server, or the name of a module that may not be installed.
Need: TypeAlias = type[Server] | str


@dataclass(frozen=True)
class Bench:
    """What a row may use."""

    urls: Urls
    directory: Path
    standin: StandIn
    question: Question

    def client(self, from_provider: Callable[..., Any], **arguments: Any) -> Any:
        """A client of instructor that asks the stand-in."""
        return from_provider(MODEL, base_url=self.standin.url, api_key="any", **arguments)

    def asking(self, from_provider: Callable[..., Any], **arguments: Any) -> Ask:
        """The question, put to a client that `from_provider` makes for the stand-in."""
        client = self.client(from_provider, **arguments)
        return partial(client.create, **self.question.arguments)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    `tier` is the tier of llmcache that has to answer, None where llmcache has no part in it;
    `settings` is `LLMCACHE` while the row runs; `only_small`: the large question is not asked.
    """

    title: str
    prepare: Callable[[Bench], Ask]
    needs: tuple[Need, ...]
    tier: str | None
    settings: dict[str, Any]
    only_small: bool = False

    @property
    def name(self) -> str:
        """What `--rows` calls it."""
        return self.prepare.__name__.replace("_", "-")

    def lacking(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        return next(filter(None, map(_lacking, self.needs)), None)


ROWS: list[Row] = []


def row(
    title: str,
    *needs: Need,
    tier: str | None = None,
    only_small: bool = False,
    **settings: Any,
) -> Callable[[Callable[[Bench], Ask]], Callable[[Bench], Ask]]:
    """Make a line of the table of a function."""

    def register(prepare: Callable[[Bench], Ask]) -> Callable[[Bench], Ask]:
        # A namespace for each: no row is answered with what another has stored.
        own = {"NAMESPACE": prepare.__name__, **settings}
        ROWS.append(Row(title, prepare, needs, tier, own, only_small))
        return prepare

    return register


def is_async(ask: Ask) -> bool:
    return inspect.iscoroutinefunction(ask)


def _lacking(need: Need) -> str | None:
    if isinstance(need, str):
        return None if find_spec(need) else f"{need} is not installed"
    return need.available()


@row("redis-py: `GET` of the same bytes", RedisServer, CACHE="redis")
def raw_get(bench: Bench) -> Ask:
    """The floor for every cache on Redis."""
    client = redis.Redis.from_url(bench.urls[RedisServer])
    with llmcache.capture() as calls:
        bench.asking(llmcache.from_provider)()
    database.finish()  # the copy is made behind the call
    [key] = client.keys(f"*copy:*{calls[0].key}")
    return partial(client.get, key)


@row("instructor: `create` up to the function that it calls")
def create_itself(bench: Bench) -> Ask:
    """What instructor does before anything of llmcache, or of the model, is asked."""
    client = bench.client(instructor.from_provider)
    client.create_fn = lambda **_: None
    return partial(client.create, **bench.question.arguments)


@row("a dictionary, and validation")
def dictionary(bench: Bench) -> Ask:
    """The floor for every cache in the process."""
    question, model = bench.question, bench.question.response_model
    found = bench.client(instructor.from_provider).create(**question.arguments)
    answers = {(42, question.text): found.model_dump_json()}
    return lambda: model.model_validate_json(answers[42, question.text])


@row("llmcache: Redis", RedisServer, tier="hot", CACHE="redis")
def from_redis(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider)


@row("llmcache: Redis, plain django-redis", RedisServer, tier="hot", CACHE="django-redis")
def plain_django_redis(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider)


@row("llmcache: Redis, async", RedisServer, tier="hot", CACHE="redis")
def from_redis_async(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider, async_client=True)


@row("llmcache: PostgreSQL", PostgreSQLServer, tier="durable", CACHE=None, DATABASE="postgres")
def postgresql(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider)


@row(
    "llmcache: PostgreSQL, async",
    PostgreSQLServer,
    tier="durable",
    CACHE=None,
    DATABASE="postgres",
)
def postgresql_async(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider, async_client=True)


@row("llmcache: MariaDB", MariaDBServer, tier="durable", CACHE=None, DATABASE="mariadb")
def mariadb(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider)


@row("llmcache: SQLite, a file", tier="durable", CACHE=None)
def sqlite(bench: Bench) -> Ask:
    return bench.asking(llmcache.from_provider)


@row("llmcache: local tier", RedisServer, tier="local", CACHE="redis", LOCAL_TTL=3600)
def local(bench: Bench) -> Ask:
    return twice(bench.asking(llmcache.from_provider))


@row("llmcache: local tier, async", RedisServer, tier="local", CACHE="redis", LOCAL_TTL=3600)
def local_async(bench: Bench) -> Ask:
    twice(bench.asking(llmcache.from_provider))  # (the entry is the same)
    return bench.asking(llmcache.from_provider, async_client=True)


@row("llmcache: `@cached`, Redis", RedisServer, tier="hot", CACHE="redis")
def cached_redis(bench: Bench) -> Ask:
    return twice(decorated(bench, llmcache.cached))


@row(
    "llmcache: `@cached`, local tier",
    RedisServer,
    tier="local",
    CACHE="redis",
    LOCAL_TTL=3600,
)
def cached_local(bench: Bench) -> Ask:
    return twice(decorated(bench, llmcache.cached))


@row(
    "llmcache: `@cached`, PostgreSQL",
    PostgreSQLServer,
    tier="durable",
    CACHE=None,
    DATABASE="postgres",
)
def cached_postgresql(bench: Bench) -> Ask:
    return twice(decorated(bench, llmcache.cached))


def twice(ask: Ask) -> Ask:
    """A call that was made twice: after the first the answer is stored, after the second local."""
    ask()
    ask()
    return ask


# Who is asked for a text: outside of the functions below, as a client in a module is.
_asked: dict[str, Callable[[], Any]] = {}


def decorated(bench: Bench, decorate: Callable[[Any], Any]) -> Ask:
    """The question, asked by a function of two arguments that `decorate` lets remember."""
    question = bench.question
    _asked[question.text] = bench.asking(instructor.from_provider)

    def extract(number: int, text: str) -> BaseModel:
        answer: BaseModel = _asked[text]()
        # Without what instructor hangs on it, which none of the guide's decorators keeps.
        return answer.model_validate(answer.model_dump())

    extract.__annotations__["return"] = question.response_model
    remembers = decorate(extract)
    return lambda: remembers(42, question.text)
