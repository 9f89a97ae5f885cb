"""A bounded number of connections to one server; who finds none free waits a moment for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from redis import ConnectionPool, RedisError
from redis._parsers import Encoder
from redis.connection import PythonRespSerializer
from redis.maint_notifications import MaintNotificationsConfig
from redis.sentinel import SentinelConnectionPool

from llmcache.backends import quick
from llmcache.breakers import NoneIsFree

# Each is in use for a tiny part of a millisecond, and more threads take turns. If a thousand of
# them were to connect at once, the server would answer some too late.
CONNECTIONS: Final = 32
# So long a thread waits for its turn.
WAIT_SECONDS: Final = 1.0

# What a connection is approved for while it is being opened: nothing is `current` that is this.
NOT_YET: Final = object()

_ENCODER: Final[Any] = Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]
OURS: Final[dict[str, Any]] = {
    # Nothing is tried twice.
    "retry": None,
    "retry_on_timeout": False,
    "retry_on_error": [],
    # They would make the timeouts longer while a server is moved.
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    # Copies in the client would outlive an invalidation.
    "cache": None,
    "cache_config": None,
    # Copies are bytes.
    "decode_responses": False,
    # That of hiredis may end the process where a signal raises (a time limit of Celery's) while it
    # is at work.
    "command_packer": PythonRespSerializer(6000, _ENCODER.encode),
    # Two round trips less for each connection: telling the server what library this is.
    "driver_info": None,
}


class Guard(Protocol):
    """Who approves of connections; each is asked about again when `current` is another object."""

    current: Any

    def check(self, connection: Any) -> Any:
        """What `current` is for it. Raises where the connection must not be used."""


class NoGuard:
    """Any server will do."""

    current: Any = None

    def check(self, connection: Any) -> Any:
        return self.current


class Approval:
    """What the guard said of each connection. (It knows of no pool: no circle holds a socket.)"""

    def __init__(self) -> None:
        self.guard: Guard = NoGuard()

    def holds(self, connection: Any) -> bool:
        """Whether the guard need not be asked about an open connection."""
        return connection.approved is self.guard.current

    def get(self, connection: Any) -> None:
        """Ask the guard. Raises what it raises; then the connection is closed."""
        try:
            connection.approved = self.guard.check(connection)
        except BaseException:
            connection.disconnect()
            raise

    def introduce(self, theirs: Callable[[Any], object] | None, connection: Any) -> None:
        """What is done with a connection each time when it was opened."""
        (theirs or type(connection).on_connect)(connection)
        self.get(connection)
        quick.prepare(connection)


class Pool(ConnectionPool):
    """That of redis-py keeps nobody waiting and refuses; its other one is slow."""

    approval: Approval

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # (here the options of the URL are among the others)
        self._wait = kwargs.pop("timeout", WAIT_SECONDS)
        kwargs = {"max_connections": CONNECTIONS} | kwargs | OURS
        introduce = partial(self.approval.introduce, kwargs.get("redis_connect_func"))
        super().__init__(*args, **kwargs | {"redis_connect_func": introduce})
        # An option that is unknown is found out here, and not by each who asks.
        self.connection_class(**self.connection_kwargs)

    def reset(self) -> None:
        """At the start, and in a forked child."""
        self._freed = threading.Condition()
        self._waiting = 0
        super().reset()

    def take(self) -> Any:
        """A connection that nobody else uses, open or not; it is to be put back."""
        self._checkpid()
        try:
            return self._available_connections.pop()
        except IndexError:
            return self._wait_for_one()

    def take_open(self) -> Any:
        """One that can be used at once; None where there is none."""
        self._checkpid()
        connection = self._pop()
        if connection is None or (connection.is_connected and self.approval.holds(connection)):
            return connection
        self.put_back(connection)
        return None

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """For redis-py, which takes it for lost when the kernel keeps the time. See `release`."""
        connection = self.take()
        try:
            self.prepare(connection)
            if connection.reader is not None:
                connection._sock.settimeout(connection.socket_timeout)  # noqa: SLF001
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Take back what `get_connection` gave: the kernel keeps the time again."""
        if connection.is_connected and connection.reader is not None:
            connection._sock.settimeout(None)  # noqa: SLF001
        self.put_back(connection)

    def put_back(self, connection: Any) -> None:
        """Let others have what was taken by `take`, or `take_open`."""
        if connection.pid != self.pid:  # (a fork's parent has it)
            return
        if connection.is_connected:
            self._available_connections.append(connection)
        else:  # those that are open are taken first
            self._available_connections.insert(0, connection)
        if self._waiting:
            with self._freed:
                self._freed.notify()

    def disconnect(self, inuse_connections: bool = False) -> None:
        """Close those that nobody uses."""
        idle = list(iter(self._pop, None))
        for connection in idle:
            connection.disconnect()
            self.put_back(connection)

    def prepare(self, connection: Any) -> None:
        """Have it open and approved. Raises what redis-py and the guard raise."""
        try:
            # (opened in part, by who was interrupted; or a reply that nobody has read)
            if connection.is_connected and (
                connection.approved is NOT_YET or connection.can_read()
            ):
                connection.disconnect()
        except (RedisError, OSError):
            connection.disconnect()  # The server has closed it while nobody used it.
        if not connection.is_connected:
            connection.approved, connection.reader = NOT_YET, None
            connection.connect()
        if connection.approved is not self.approval.guard.current:
            self.approval.get(connection)

    def _pop(self) -> Any:
        try:
            return self._available_connections.pop()
        except IndexError:
            return None

    def _wait_for_one(self) -> Any:
        with self._freed:
            if self._created_connections < self.max_connections:
                return self.make_connection()
            self._waiting += 1
            try:
                connection = self._freed.wait_for(self._pop, self._wait)
            finally:
                self._waiting -= 1
        if connection is None:
            raise NoneIsFree("all connections were in use")
        return connection


class SentinelPool(Pool, SentinelConnectionPool):
    """One that asks the Sentinels which server is the primary."""
