"""Any sequence of operations, against a dictionary: a call returns what that holds, or asks.

Run in a process of its own, since under a test runner of Django llmcache takes care to leave no
connection open.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic import create_model

import llmcache
from llmcache.outcomes import Call
from tests.faults.model import Answer, Model, call_for

SHORT_TTL = 0.02

# The response model before and after a deploy that changed it: of one name, and not the same.
SCHEMAS: dict[str, type[Answer]] = {
    "old": Answer,
    "new": create_model("Answer", __base__=Answer, __module__=Answer.__module__, more=(str, "")),
}


@dataclass(frozen=True)
class Question:
    """What is asked, and of whom."""

    text: str
    namespace: str
    model: str
    schema: str

    @property
    def tags(self) -> list[str]:
        return [f"about {self.text}"]


questions = st.builds(
    Question,
    text=st.sampled_from(["a", "b"]),
    namespace=st.sampled_from(["n", "m"]),
    model=st.sampled_from(["small", "large"]),
    schema=st.sampled_from(list(SCHEMAS)),
)


@dataclass(frozen=True)
class Held:
    """An answer that is stored: its number, and a moment just before it was asked for."""

    number: int
    at: float


class Cache(RuleBasedStateMachine):
    """The cache, and the dictionary that it is to be like."""

    line: ClassVar[Connection]
    #: How many calls there were, and why some asked although the dictionary had an answer.
    calls: ClassVar[int] = 0
    needless: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        numbers = itertools.count(1)
        self.model = Model(lambda _: next(numbers))
        self.clients = {
            (is_async, model): self.model.client(is_async=is_async, model=model)
            for is_async in (False, True)
            for model in ("small", "large")
        }
        self.runner = asyncio.Runner()
        self.held: dict[Question, Held] = {}
        # Answers whose hot copies could not be removed: served, at worst, until they are.
        self.pending: dict[Question, set[int]] = {}
        self.is_on = True
        self.began = 0.0
        self.last = Call()

    @initialize()
    def start_empty(self) -> None:
        self._tell("on")
        self._tell("flush")
        assert "durable" not in llmcache.invalidate(everything=True).pending

    def teardown(self) -> None:
        self.runner.close()

    @rule(question=questions, is_async=st.booleans())
    def get(self, question: Question, is_async: bool) -> None:
        self._check(question, self._ask(question, is_async))

    @rule(question=questions, is_async=st.booleans())
    def store(self, question: Question, is_async: bool) -> None:
        self._check(question, self._ask(question, is_async, cache_mode="reload"))

    @rule(question=questions)
    def store_for_a_moment(self, question: Question) -> None:
        self._ask(question, cache_mode="reload", cache_ttl=SHORT_TTL)
        time.sleep(1.1 * SHORT_TTL)
        self._forget(lambda other: other == question, is_pending=False)

    @rule(question=questions)
    def get_and_roll_back(self, question: Question) -> None:
        with transaction.atomic(using="postgres"):
            answer = self._ask(question)
            transaction.set_rollback(True, using="postgres")
        self._check(question, answer)

    @rule(question=questions)
    def invalidate_a_key(self, question: Question) -> None:
        key = llmcache.key_for(self.clients[False, question.model], **self._call(question))
        self._invalidate(lambda other: other == question, keys=[key])

    @rule(text=st.sampled_from(["a", "b"]))
    def invalidate_a_tag(self, text: str) -> None:
        self._invalidate(lambda other: other.text == text, tags=[f"about {text}"])

    @rule(namespace=st.sampled_from(["n", "m"]))
    def invalidate_a_namespace(self, namespace: str) -> None:
        self._invalidate(lambda other: other.namespace == namespace, namespace=namespace)

    @rule(model=st.sampled_from(["small", "large"]))
    def invalidate_a_model(self, model: str) -> None:
        self._invalidate(lambda other: other.model == model, model=model)

    @rule()
    def invalidate_a_response_model(self) -> None:
        # By its path, which both versions have.
        self._invalidate(lambda other: True, response_model=Answer)

    @rule(namespace=st.sampled_from(["n", "m"]), model=st.sampled_from(["small", "large"]))
    def invalidate_by_two_criteria(self, namespace: str, model: str) -> None:
        self._invalidate(
            lambda other: (other.namespace, other.model) == (namespace, model),
            namespace=namespace,
            model=model,
        )

    @rule()
    def invalidate_what_is_old(self) -> None:
        """Older than the second newest answer."""
        moments = sorted(held.at for held in self.held.values())
        moment = moments[-2] if len(moments) > 1 else time.time()
        self._invalidate(
            lambda other: other in self.held and self.held[other].at < moment,
            before=datetime.fromtimestamp(moment, tz=UTC),
        )

    @rule()
    def invalidate_everything(self) -> None:
        self._invalidate(lambda other: True, everything=True)

    @rule()
    def expire(self) -> None:
        from llmcache.removal.expire import expire_entries

        expire_entries()

    @rule()
    def flush_the_hot_tier(self) -> None:
        self._tell("flush")
        self.pending.clear()

    @rule()
    def turn_the_hot_tier_off_or_on(self) -> None:
        self.is_on = not self.is_on
        self._tell("on" if self.is_on else "off")

    def _tell(self, order: str) -> None:
        """Have the parent do something to the hot tier; it is done after that."""
        self.line.send(order)
        self.line.recv()

    def _ask(self, question: Question, is_async: bool = False, **more: Any) -> tuple[Any, bool]:
        """The answer, and whether the model was asked for it."""
        before, self.began = self.model.asked, time.time()
        with llmcache.capture() as calls:
            answer = self.clients[is_async, question.model].create(**self._call(question), **more)
            if is_async:
                answer = self.runner.run(_awaited(answer), context=copy_context())
        [self.last] = calls
        return answer, self.model.asked > before

    def _call(self, question: Question) -> dict[str, Any]:
        call = call_for(question.text, cache_namespace=question.namespace, cache_tags=question.tags)
        return {**call, "response_model": SCHEMAS[question.schema]}

    def _check(self, question: Question, answered: tuple[Any, bool]) -> None:
        answer, is_live = answered
        held = self.held.get(question)
        assert answer.question == question.text
        assert isinstance(answer, SCHEMAS[question.schema])
        type(self).calls += 1
        if is_live:
            if held and self.last.outcome == "miss":
                self.needless[self.last.reason] += 1
            self.held[question] = Held(answer.number, self.began)
        else:
            allowed = self.pending.get(question, set()) | ({held.number} if held else set())
            assert answer.number in allowed, f"{answer.number} was served; held are {allowed}"

    def _invalidate(self, fits: Callable[[Question], bool], **criteria: Any) -> None:
        pending = llmcache.invalidate(**criteria).pending
        assert "durable" not in pending
        self._forget(fits, is_pending="hot" in pending)

    def _forget(self, fits: Callable[[Question], bool], *, is_pending: bool) -> None:
        for question in [question for question in self.held if fits(question)]:
            number = self.held.pop(question).number
            if is_pending:
                self.pending.setdefault(question, set()).add(number)


async def _awaited(answer: Any) -> Any:
    return await answer


def explore(line: Connection, *, examples: int, steps: int) -> dict[str, Any]:
    """A task: try so many sequences of so many operations, and say how many calls that were."""

    Cache.line = line
    run_state_machine_as_test(
        Cache,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return {"calls": Cache.calls, "needless": dict(Cache.needless)}
