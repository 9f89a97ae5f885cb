"""The epoch of the hot tier: what a copy's name begins with, so that old ones are out of reach.

A server of Redis may come back with copies that were removed: from a snapshot, or as a replica that
took over without the last deletions. So a row lists, by address, the servers that hold copies of
this epoch, each with its identity: a server that was started anew, or promoted, has another one.
Each new connection compares it (see `backends`). Where the row does not list it, a new epoch begins
before anybody is answered on that connection, and nobody asks for the older copies any more. It
costs a hit nothing: its name was made when its connection was opened.

What holds, whichever process is late:

- Nobody reads from a server whose identity his epoch does not list. A name is made when the
  connection is there, or the epoch is compared once more when the reply is.
- A copy is written while its entry's row is held, under the epoch that stands in the row then. So a
  process that is late (no server that it knows has come back) reads copies, and makes none.
- A removal reads the row when the entry's row is gone, or held, and removes the copy of this epoch
  and of the earlier ones that a process which is late may still read: those that ended less than
  the longest life of a copy ago.
- Names are random. A row that is lost (`flush`), or older than it was (a restored dump), never
  gives an old one again.

A connection that was opened before its server was demoted and promoted again, and survived both, is
not noticed; Sentinel and the servers of a cluster close, or redirect, those that they know of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from secrets import token_hex
from typing import Any, Final

from django.db import connections
from django.utils import timezone

from llmcache.background import database, transactions
from llmcache.background.forks import lock
from llmcache.breakers import CircuitOpen, Use, is_up, must_be_up
from llmcache.conf import settings
from llmcache.outcomes import Tier
from llmcache.resilience import recovery
from llmcache.store import local
from llmcache.store.rows import locks

#: All copies are under it, and nothing else is.
COPIES: Final = "llmcache:copy:"

# So long a new epoch waits for the write lock of SQLite: a call is not held up for it.
LOCK_SECONDS: Final = 0.2
# So often it is tried; each time, another process has begun one for another server.
ATTEMPTS: Final = 10
# What a row lists at most; the oldest go first. (A server that is not listed begins a new epoch.)
MOST_SERVERS: Final = 1000
MOST_EARLIER: Final = 50
# Clocks of two hosts differ.
CLOCK_SECONDS: Final = 60.0
IDENTITY: Final = re.compile(rb"(?m)^(?:run_id|master_replid):(\w+)")


class EpochUnknown(Exception):
    """Which copies are of use cannot be found out here and now, so none is."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """Its name, the servers that it lists, and which were before, until when (in seconds)."""

    name: str
    servers: Mapping[str, str] = field(default_factory=dict)
    earlier: tuple[tuple[str, float], ...] = ()

    @cached_property
    def copies(self) -> str:
        """What the copy of an entry is called, but for its key."""
        return copy_name(self.name, "")

    @property
    def living(self) -> list[str]:
        """The names of this epoch and of those whose copies somebody may still read."""
        since = time.time() - settings.hot_ttl - CLOCK_SECONDS
        return [self.name, *(name for name, ended in self.earlier if ended > since)]

    def followed_by(self, servers: Mapping[str, str]) -> Epoch:
        """A new one, with these servers too."""
        ended = (self.name, time.time())
        listed = dict(list({**self.servers, **servers}.items())[-MOST_SERVERS:])
        return Epoch(token_hex(8), listed, (ended, *self.earlier)[:MOST_EARLIER])


def copy_name(epoch: str, key: str) -> str:
    """What the copy of an entry is called in the epoch of that name."""
    return f"{COPIES}{epoch}:{key}"


#: The epoch, as far as this process knows; None: it does not.
current: Epoch | None = None
_lock: Final = lock()
#: The addresses of servers that do not say who they are.
hidden: Final[set[str]] = set()


def ensure() -> Epoch:
    """The epoch that this process knows, or learns. Raises what the database raises."""
    return current or learn()


def check(connection: Any) -> Epoch:
    """The current epoch, which lists the server that `connection` was opened to.

    Raises what Redis raises, what the database raises, or `EpochUnknown`.
    """
    if not any(is_up(Tier.HOT, use) for use in Use):
        raise CircuitOpen(Tier.HOT)  # (since the caller has begun to wait for a connection)
    path = getattr(connection, "path", None)
    address = str(path or f"{connection.host}:{connection.port}")
    identity = _identity_of(connection)
    # (one that does not say who it is may come back, and nobody notices: a proxy hides it)
    (hidden.discard if identity else hidden.add)(address)
    epoch = current
    if epoch is None or epoch.servers.get(address) != identity:
        epoch = learn({address: identity})
    return epoch


def learn(servers: Mapping[str, str] | None = None) -> Epoch:
    """The epoch that stands in the row, where it lists `servers`; else a new one that does."""
    must_be_up(Tier.DURABLE, Use.READ)
    if transactions.will_be_undone():
        # (the row would be undone as well, and nobody makes copies there)
        return _adopt(_standing() or Epoch(token_hex(8), servers or {}))
    if database.runs_here() and connections[transactions.database_alias()].in_atomic_block:
        raise EpochUnknown("a new epoch cannot begin within a transaction")
    return _adopt(database.run(partial(_start, servers or {})))


def stands(epoch: Epoch) -> bool:
    """Whether it is the one in the row: in the transaction of who holds an entry's row."""
    return bool(_rows().filter(pk=1, name=epoch.name).exists())


def living() -> list[str]:
    """The names of the epochs whose copies a process may still read. Reads the row."""
    standing = database.run(_standing)
    # (of a row that is lost, this process knows)
    return list(dict.fromkeys([*(standing.living if standing else ()), *known()]))


def known() -> list[str]:
    """`living`, as far as this process knows without asking the database."""
    return current.living if current else []


def forget() -> None:
    """The row was emptied: what this process knows is nothing any more."""
    global current
    current = None
    local.clear()


def began_at() -> datetime | None:
    """When the epoch began that stands in the row."""
    return _rows().values_list("began_at", flat=True).first()  # type: ignore[no-any-return]


def _adopt(epoch: Epoch) -> Epoch:
    global current
    with _lock:
        if current is not None and current.name == epoch.name:
            return current
        current = epoch
    local.clear()
    return epoch


def _start(servers: Mapping[str, str]) -> Epoch:
    """Each statement stands alone: another process sees the row before anybody uses its epoch."""
    with locks.impatient(transactions.database_alias(), LOCK_SECONDS):
        for _ in range(ATTEMPTS):
            standing = _standing()
            if standing is not None and servers.items() <= standing.servers.items():
                return standing
            before = standing or current
            new = before.followed_by(servers) if before else Epoch(token_hex(8), servers)
            facts = {
                "name": new.name,
                "servers": list(new.servers.items()),
                "earlier": new.earlier,
                "began_at": timezone.now(),
            }
            if standing is not None:
                _rows().filter(pk=1, name=standing.name).update(**facts)
            else:
                _rows().bulk_create([_rows().model(pk=1, **facts)], ignore_conflicts=True)
    raise EpochUnknown("other processes begin one epoch after the other")


def _standing() -> Epoch | None:
    row = _rows().filter(pk=1).values_list("name", "servers", "earlier").first()
    return None if row is None else Epoch(row[0], dict(row[1]), tuple(row[2]))


def _identity_of(connection: Any) -> str:
    """What a server is not called any more once it was started anew, or promoted."""
    from redis import ResponseError

    told = b""
    for section in ("server", "replication"):  # (older ones take one at a time)
        connection.send_command("INFO", section, check_health=False)
    for _ in range(2):
        try:
            reply = connection.read_response(disable_decoding=True)
        except ResponseError:  # a proxy, or rights, forbid it
            continue
        told += (reply.encode() if isinstance(reply, str) else bytes(reply)) + b"\n"
    return b":".join(IDENTITY.findall(told)).decode()


def _rows() -> Any:
    return transactions.rows("Epoch")


recovery.with_other_tiers(forget)
recovery.with_other_tiers(hidden.clear)
