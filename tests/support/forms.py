"""Values of all kinds, and requests made of them."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, PrivateAttr

from llmcache.keys.request import (
    canonical_part,
)


def form(value: Any) -> bytes:
    return canonical_part("context", value)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Role(StrEnum):
    USER = "user"


Point = namedtuple("Point", "x y")


@dataclass
class Place:
    name: str
    visits: int = 0
    seen: list[int] = field(default_factory=list)


class Document(BaseModel):
    title: str
    pages: int = 1


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str = ""
    _draft: bool = PrivateAttr(False)

    @cached_property
    def shout(self) -> str:
        return self.title.upper()


class Text(str):
    pass


ZURICH = ZoneInfo("Europe/Zurich")

NOON = datetime(2024, 10, 27, 12, 0, tzinfo=UTC)

# The names of classes count in the key: these keep theirs, whichever file they are in.
for named in (Colour, Point, Place, Document, Loose):
    named.__module__ = "tests.test_keys"
