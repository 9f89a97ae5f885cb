"""What the tiers give and take: an entry that was found, that none was, and one to be stored."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmcache.outcomes import Tier
from llmcache.reasons import Reason


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to be stored: the sealed payload and what is known about it.

    Times are seconds since the epoch; `expires` None: never; `stale_until` None: with it. Texts may
    be of any length and hold anything; they are made to fit.
    """

    key: str
    namespace: str
    payload: bytes
    created: float
    expires: float | None = None
    tags: frozenset[str] = frozenset()
    request: bytes | None = None
    provider: str = ""
    endpoint: str = ""
    model: str = ""
    mode: str = ""
    response_model: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: int | None = None
    latency: float | None = None
    stale_until: float | None = None
    #: What it was made of: the keys, and when each was asked for; 0 where no row is expected.
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """An entry that was found, and which tier had it.

    `created` (when it was asked for) and `expires` in seconds since the epoch; `stale_for`: how
    many seconds ago it expired, 0 while it is fresh.
    """

    body: bytes
    tier: Tier
    expires: float | None
    stale_for: float = 0.0
    created: float = 0.0

    @property
    def fresh(self) -> bool:
        return not self.stale_for


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing that may be served; `reasons` tell of trouble, and are none for a plain miss.

    Where the rows were asked, `looked` is when (`time.monotonic`), and `generation` what
    `late_answers.generation` said then.
    """

    reasons: tuple[Reason, ...] = ()
    looked: float = field(default=0.0, compare=False)
    generation: int | None = field(default=None, compare=False)
