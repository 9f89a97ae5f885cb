"""What llmcache promises of its speed, and whether this run kept it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.measuring import COROUTINES, Subject
from tests.benchmarks.misses import Misses

Named = dict[str, Subject]

REDIS_PEERS = ("redis-adapter", "langchain-redis")
ASYNC_PEERS = (
    "auto-cache-async",
    "langchain-memory-async",
    "dspy-async",
)


@dataclass(frozen=True)
class Promise:
    """`figure` of the rows by their names; None where one of them was not measured."""

    text: str
    figure: Callable[[Named], float]
    bound: float
    unit: str = "×"
    at_least: bool = False

    def line(self, named: Named) -> list[str]:
        try:
            figure = self.figure(named)
        except KeyError as missing:
            return [self.text, "–", self._bound, f"no row {missing}"]
        kept = figure >= self.bound if self.at_least else figure <= self.bound
        return [self.text, f"{figure:.2f} {self.unit}", self._bound, "yes" if kept else "**no**"]

    @property
    def _bound(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}"


def times(one: str, other: str) -> Callable[[Named], float]:
    """By how much the one takes longer: the median of the rounds' ratios."""

    def figure(named: Named) -> float:
        pairs = zip(named[one].medians, named[other].medians, strict=True)
        return median(own / its for own, its in pairs)

    return figure


def more(one: str, other: str) -> Callable[[Named], float]:
    """By how many microseconds."""

    def figure(named: Named) -> float:
        pairs = zip(named[one].medians, named[other].medians, strict=True)
        return median(own - its for own, its in pairs) / 1000

    return figure


def slowest_peer(named: Named) -> float:
    return min(times(peer, "from-redis")(named) for peer in REDIS_PEERS)


def best_of(name: str, *peers: str) -> Callable[[Named], float]:
    """How many times as many coroutines of the one are answered in a second as of the best peer."""

    def figure(named: Named) -> float:
        rates = {
            name: median(each.per_second[COROUTINES]) for name, each in named.items() if each.stills
        }
        return rates[name] / max(rates[peer] for peer in peers)

    return figure


def still(named: Named) -> float:
    return median(named["from-redis-async"].stills) / 1e6


PROMISES = (
    Promise("`create`, Redis, to the raw `GET`", times("from-redis", "raw-get"), 1.6),
    Promise(
        "instructor's AutoCache in process, to `create` from Redis",
        times("auto-cache", "from-redis"),
        4,
        at_least=True,
    ),
    Promise("the quickest peer on Redis, to `create` from Redis", slowest_peer, 5, at_least=True),
    Promise(
        "`create`, local tier, to instructor's `create` up to its function",
        times("local", "create-itself"),
        1.5,
    ),
    Promise(
        "`@cached`, local tier, more than a dictionary and validation",
        more("cached-local", "dictionary"),
        15,
        "µs",
    ),
    Promise(
        "`@cached`, Redis, to the hand-written decorator over Redis",
        times("cached-redis", "by-hand-redis"),
        1.3,
    ),
    Promise(
        "`create`, PostgreSQL, to instructor's DiskCache", times("postgresql", "disk-cache"), 1
    ),
    Promise(
        "openai's SDK over HTTP, Redis, to the SDK over a transport in memory",
        times("sdk-from-redis", "sdk-in-memory"),
        1.15,
    ),
    Promise("`create`, SQLite, to instructor's DiskCache", times("sqlite", "disk-cache"), 1),
    Promise(
        "1,000 coroutines from Redis, calls a second, to the best peer's",
        best_of("from-redis-async", *ASYNC_PEERS),
        2,
        at_least=True,
    ),
    Promise(
        "1,000 coroutines over HTTP from Redis, calls a second, to LiteLLM's cache in process",
        best_of("sdk-from-redis-async", "litellm-async"),
        2,
        at_least=True,
    ),
    Promise("1,000 coroutines from Redis: the loop stood still", still, 5, "ms"),
)


def lines(subjects: Sequence[Subject], misses: Sequence[Misses]) -> list[list[str]]:
    """A line for each promise: its text, the figure, the bound, and whether it was kept."""
    named = {subject.row.name: subject for subject in subjects}
    of_misses = [
        Promise(each.text, lambda _, each=each: each.adds, each.bound, "ms")  # type: ignore[misc]
        for each in misses
    ]
    kept = [promise.line(named) for promise in (*PROMISES, *of_misses)]
    return [["promised", "figure", "bound", "kept"], *kept]
