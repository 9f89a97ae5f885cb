"""Decorated functions, and what they were asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somewhere import Nothing  # type: ignore[import-not-found]
import asyncio
from dataclasses import dataclass

import llmcache
from tests.support.ticket import Ticket

# What the functions below were called with, and what they are to raise.
asked: list[Any] = []

trouble: list[BaseException] = []


def note(*arguments: Any) -> None:
    asked.append(arguments)
    if trouble:
        raise trouble[0]


def told(calls: list[Any]) -> list[tuple[str, str]]:
    return [(call.outcome, call.reason) for call in calls]


def outcomes(calls: list[Any]) -> list[str]:
    return [str(call.outcome) for call in calls]


@llmcache.cached
def extract(number: int, text: str = "fire", *, urgent: bool = False) -> Ticket:
    """Extract a ticket."""
    note(number, text, urgent)
    return Ticket(title=f"{number} {text} {len(asked)}")


@llmcache.cached()
async def aextract(number: int, text: str = "fire") -> Ticket:
    note(number, text)
    await asyncio.sleep(0)
    return Ticket(title=f"{number} {text} {len(asked)}")


@llmcache.cached
def anything(value: Any) -> Any:
    note(value)
    return value


@llmcache.cached
def untyped(number):
    note(number)
    return number


@llmcache.cached
def unresolved(number: int) -> Nothing:
    note(number)
    return number


@dataclass
class Extractor:
    model: str

    @llmcache.cached
    def extract(self, text: str) -> str:
        """Extract."""
        note(self.model, text)
        return f"{self.model} {text}"

    @llmcache.cached
    async def aextract(self, text: str) -> str:
        note(self.model, text)
        return f"{self.model} {text}"


class Plain:
    def __init__(self, model: str) -> None:
        self.model = model

    @llmcache.cached
    def extract(self, text: str) -> str:
        note(self.model, text)
        return f"{self.model} {text}"

    @llmcache.cached(exclude=("self",))
    def shared(self, text: str) -> str:
        note(self.model, text)
        return text

    @llmcache.cached
    @classmethod
    def above(cls, text: str) -> str:
        note(cls, text)
        return f"{cls.__name__} {text}"

    @classmethod
    @llmcache.cached
    def below(cls, text: str) -> str:
        note(cls, text)
        return f"{cls.__name__} {text}"

    @llmcache.cached
    @staticmethod
    def static_above(text: str) -> str:
        note(text)
        return text

    @staticmethod
    @llmcache.cached
    def static_below(text: str) -> str:
        note(text)
        return text


# Generators


@llmcache.cached
def spell(word: str) -> Iterator[str]:
    note(word)
    for number, letter in enumerate(word):
        if trouble and number:
            raise trouble[0]
        yield letter
    asked.append("end")


@llmcache.cached
async def aspell(word: str) -> AsyncIterator[str]:
    note(word)
    try:
        for letter in word:
            await asyncio.sleep(0)
            yield letter
    finally:
        asked.append("closed")


one = Plain("a")
