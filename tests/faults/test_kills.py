"""Workers are killed at every point of a call: what was acknowledged to them holds."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import breaking_redis, kills, report
from tests.faults.children import Child, do
from tests.faults.extent import extent
from tests.faults.kills import POINTS, Remains
from tests.faults.sites import Site
from tests.support.servers import RedisServer

KILLS = extent(24, 300)
AT_ONCE = 3
LEASE_SECONDS = extent(2, 10)
# A worker that does not come by its point is not waited for longer than that.
LIFE_SECONDS = 30.0
# How much longer than the lease of one who was killed a call may take, on a busy machine.
SLACK_SECONDS = 10.0


@dataclass
class Removal:
    """An invalidation: when it began, and ended; `inf` when nobody lived to see that."""

    began: int
    keys: list[str]
    tags: list[str]
    ended: float = float("inf")
    pending: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether somebody was told that it is done. (What was pending in Redis is, by now.)"""
        return self.ended < float("inf") and "durable" not in self.pending

    def fits(self, key: str, tags: list[str]) -> bool:
        return key in self.keys or not set(tags).isdisjoint(self.tags)


@dataclass
class History:
    """What the journals say."""

    # By key, the digests of what was to be stored, and when that was asked for.
    drafts: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    tags: dict[str, list[str]] = field(default_factory=dict)
    # By key, the digests of what was acknowledged as stored.
    kept: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    removals: dict[str, Removal] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def read(self, path: Path) -> None:
        for line in path.read_text().splitlines():
            getattr(self, f"_{json.loads(line)['kind']}")(json.loads(line))

    def _storing(self, note: dict[str, Any]) -> None:
        self.drafts[note["key"]][note["digest"]] = note["asked"]
        self.tags[note["key"]] = note["tags"]

    def _answered(self, note: dict[str, Any]) -> None:
        self.waits.append(note["seconds"])
        if note["stored"] is not None:
            self.kept[note["key"]].append(note["stored"])

    def _invalidating(self, note: dict[str, Any]) -> None:
        self.removals[note["name"]] = Removal(
            note["at"], note.get("keys", []), note.get("tags", [])
        )

    def _invalidated(self, note: dict[str, Any]) -> None:
        removal = self.removals[note["name"]]
        removal.ended, removal.pending = note["at"], note["pending"]


def test_kills(on_postgres: Site, redis: RedisServer, tmp_path: Path) -> None:
    site = on_postgres.but(LEASE_SECONDS=LEASE_SECONDS)
    with breaking_redis.told(redis) as tell:
        tell("FLUSHALL")
    killed = kill_workers(site, tmp_path)
    time.sleep(LEASE_SECONDS + 1)
    history = History()
    for path in tmp_path.glob("*.journal"):
        history.read(path)
    remains = do(site, kills.look, keys=list(history.drafts))
    lost, undone = set(losses(history, remains)), set(returns(history, remains))
    report.record(
        "kills",
        kills=killed,
        points={point.where: KILLS // len(POINTS) for point in POINTS},
        acknowledged=sum(map(len, history.kept.values())),
        invalidations=sum(removal.ended < float("inf") for removal in history.removals.values()),
        lost=len(lost),
        undone=len(undone),
        leases=remains.leases,
        longest_wait=max(history.waits),
    )
    assert killed == KILLS
    assert history.kept
    assert not lost
    assert not undone
    assert orphans(remains) == []
    assert remains.leases == 0
    with breaking_redis.told(redis) as tell:
        assert tell("KEYS", "*:lease:*") == []
    assert max(history.waits) < LEASE_SECONDS + SLACK_SECONDS


def kill_workers(site: Site, journals: Path) -> int:
    """Have workers killed, some at a time, each at the next point; how many were."""
    points = [POINTS[number % len(POINTS)] for number in range(KILLS)]
    random.Random(1).shuffle(points)
    killed, waiting = 0, list(enumerate(points))
    alive: list[tuple[Child, float]] = []
    while waiting or alive:
        while waiting and len(alive) < AT_ONCE:
            seed, point = waiting.pop()
            order = {"point": point, "seed": seed, "journal": journals / f"{seed}.journal"}
            alive.append((Child(site, kills.work, **order), time.monotonic() + LIFE_SECONDS))
        time.sleep(0.02)
        for child, ends in list(alive):
            if not child.alive or time.monotonic() > ends:
                killed += child.was_killed
                child.close()
                alive.remove((child, ends))
    return killed


def losses(history: History, remains: Remains) -> Iterator[str]:
    """Keys whose acknowledged answer is gone, or is not what was acknowledged, byte for byte."""
    for key, digests in history.kept.items():
        drafts = history.drafts[key]
        asked = max(drafts[digest] for digest in digests)
        if any(
            removal.ended >= asked and removal.fits(key, history.tags[key])
            for removal in history.removals.values()
        ):
            continue
        row = remains.rows.get(key)
        if row is None or drafts.get(kills.digest_of(row), -1) < asked:
            yield key


def returns(history: History, remains: Remains) -> Iterator[str]:
    """Keys of rows and copies that are older than an invalidation that had been acknowledged."""
    for stored in (remains.rows, remains.copies):
        for key, payload in stored.items():
            tags, asked = history.tags.get(key, []), kills.asked(key, payload)
            for removal in history.removals.values():
                if removal.holds and removal.fits(key, tags) and asked < removal.began:
                    yield key


def orphans(remains: Remains) -> list[str]:
    """Keys of hot copies that are not those of their rows."""
    return [key for key, copy in remains.copies.items() if remains.rows.get(key) != copy]
