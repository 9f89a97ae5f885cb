"""What can happen to Redis. Each breaks it inside the block, and mends it after."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from tests.faults.proxy import Proxy
from tests.support.servers import RedisServer, free_port


@contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    """It accepts connections and never answers (SIGSTOP)."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    """It is gone, and comes back empty."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def flushed(server: RedisServer) -> Iterator[None]:
    """It loses all it has, several times a second (FLUSHALL)."""
    with told(server) as tell, again_and_again(lambda: tell("FLUSHALL"), every=0.2):
        yield


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    """It refuses to write (maxmemory with noeviction), and answers all else."""
    with told(server) as tell:
        tell("CONFIG", "SET", "maxmemory-policy", "noeviction")
        tell("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
            tell("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    """It is a replica whose master is gone: it reads, and refuses to write."""
    with told(server) as tell:
        tell("REPLICAOF", "127.0.0.1", str(free_port()))
        try:
            yield
        finally:
            tell("REPLICAOF", "NO", "ONE")


@contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    """It answers only now and then (CLIENT PAUSE)."""
    with (
        told(server) as tell,
        # (the one who asks for the next pause waits for the end of this one as well)
        again_and_again(lambda: tell("CLIENT", "PAUSE", "400", "ALL"), every=0.6),
    ):
        yield


@contextmanager
def slow(proxy: Proxy) -> Iterator[None]:
    """Each of its replies takes 500 ms longer."""
    proxy.delay = 0.5
    try:
        yield
    finally:
        proxy.delay = 0.0


@contextmanager
def cut_off(proxy: Proxy) -> Iterator[None]:
    """Each of its replies is broken off in the middle."""
    proxy.cutting = True
    try:
        yield
    finally:
        proxy.cutting = False


@contextmanager
def told(server: RedisServer) -> Iterator[Callable[..., Any]]:
    """Send it commands as an operator."""
    with redis.Redis.from_url(server.url, socket_timeout=10) as client:
        yield client.execute_command


@contextmanager
def again_and_again(work: Callable[[], object], *, every: float) -> Iterator[None]:
    """Do `work` each `every` seconds while the block runs, at least once."""
    end = threading.Event()

    def repeat() -> None:
        work()
        while not end.wait(every):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
