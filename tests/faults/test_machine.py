"""Whatever is done in whatever order, a call returns what is stored, or the live answer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults import breaking_redis, machine, report, sites
from tests.faults.children import Child, prepare
from tests.faults.extent import extent
from tests.faults.proxy import Proxy
from tests.faults.sites import Site
from tests.support.servers import PostgreSQLServer, RedisServer

EXAMPLES = extent(60, 200)
STEPS = 50
# Of a hundred calls for what is stored, so many may ask all the same: never wrong, but dear.
MOST_NEEDLESS = 5


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis.port) as proxy:
        yield proxy


@pytest.fixture
def site(
    postgres: PostgreSQLServer, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    return prepare(sites.on_postgres(postgres, proxy.url, tmp_path_factory.mktemp("machine")))


def test_it_is_like_a_dictionary(site: Site, proxy: Proxy, redis: RedisServer) -> None:
    started = time.monotonic()
    with (
        breaking_redis.told(redis) as tell,
        Child(site, machine.explore, examples=EXAMPLES, steps=STEPS) as child,
    ):
        while isinstance(message := child.hear(seconds=extent(120, 1200)), str):
            if message == "flush":
                tell("FLUSHALL")
            else:
                proxy.refusing = message == "off"
                if proxy.refusing:
                    proxy.hang_up()
            child.tell("done")
    report.record(
        "machine", examples=EXAMPLES, steps=STEPS, seconds=time.monotonic() - started, **message
    )
    assert message["calls"]
    needless = sum(message["needless"].values())
    assert needless * 100 <= message["calls"] * MOST_NEEDLESS, message["needless"]
