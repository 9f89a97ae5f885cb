"""Vectors, text by text: each has an entry of its own, whatever others it was asked with.

A batch is looked up at once, and the model is asked for those that are missing, each once. What is
stored of a text is what came for it, as it is written in the response, and what that says of all,
without the tokens: who is served it has used none.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Final

from llmcache.codec.answers import StoredAnswer
from llmcache.codec.completions import Dumped
from llmcache.discretion import without_content
from llmcache.exceptions import CorruptEntry
from llmcache.flow.abreast import Abreast
from llmcache.flow.drivers import adrive, drive
from llmcache.flow.steps import NotStorable
from llmcache.http.door import library_of
from llmcache.http.judgement import read_json
from llmcache.http.request import DECODED, FIRST_ERROR, HttpRequest
from llmcache.http.response import OK, Head, Whole
from llmcache.outcomes import Call
from llmcache.policy import CacheMode
from llmcache.providers import pricing
from llmcache.providers.dialects import Batch, OutOfOrder
from llmcache.providers.dialects.vectors import with_members
from llmcache.reasons import Reason, ReasonCode
from llmcache.store.records import Found

logger = logging.getLogger("llmcache")

# The kind of what is stored beside a vector.
REST: Final = "llmcache:rest"
# What says that the body is signed: another one would be refused (RFC 9421, RFC 9530, AWS).
SIGNED: Final = frozenset({"content-digest", "content-md5", "digest", "signature", "x-amz-date"})
NOT_SENT: Final = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(slots=True)
class Reply:
    """What came for some of the texts: a piece for each key, or why there is none."""

    whole: Whole
    is_of_all: bool
    told: Mapping[str, Any]
    pieces: dict[str, str] = field(default_factory=dict)
    refusal: Reason | None = None


@dataclass(slots=True)
class Vector:
    """What a text is answered with: its piece of a response, and what that says of all.

    A live one has its `reply`, and its shares of the tokens and of the time that this took.
    """

    piece: str
    head: bytes
    rest: bytes
    reply: Reply | None = None
    tokens: int | None = None
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Item(HttpRequest):
    """The request of one text."""

    of: Texts
    text: Any

    def ask(self) -> Any:
        return self.of.ask([self])[0]

    async def aask(self) -> Any:
        return (await self.of.aask([self]))[0]

    def restore(self, found: Found) -> Vector:
        stored = StoredAnswer.unpack(found.body)
        if stored.completion is None or stored.completion.class_path != REST:
            raise CorruptEntry("not a vector")
        return Vector(stored.answer.decode(), stored.fields_set, stored.completion.data)

    def bill(self, answer: Vector, seconds: float) -> None:
        call = self.call
        if self.status >= FIRST_ERROR:
            return  # (nobody has answered)
        used = {} if answer.tokens is None else {"usage": {"input_tokens": answer.tokens}}
        self.receipt = call.spent = pricing.receipt(
            used,
            provider=call.provider,
            model=call.model,
            seconds=answer.seconds,
            writes=False,
        )

    def encoded(self, answer: Vector) -> StoredAnswer:
        self.check_status()
        reply = answer.reply
        if reply is None or reply.refusal is not None:
            raise NotStorable((reply and reply.refusal) or ReasonCode.NOT_WHOLE(why="no reply"))
        self.admit(reply.told, reply.told)
        rest = Dumped(REST, answer.rest)
        return StoredAnswer(answer.piece.encode(), rest, fields_set=answer.head)


class Texts:
    """The texts of one request."""

    def __init__(self, asked: HttpRequest, batch: Batch, texts: list[Any]) -> None:
        self._asked, self._batch, self._texts = asked, batch, texts
        # (a signature is of the body as it is, so all of it is asked for)
        self._is_signed = bool(SIGNED & asked.sent.headers.keys())
        #: For each text its request; one that comes twice has one.
        self._of_each: list[Item] = []
        of_keys: dict[str, Item] = {}
        for text in texts:
            item = self._item_of(text)
            self._of_each.append(of_keys.setdefault(item.call.key, item))
        self.items = list(of_keys.values())

    def _item_of(self, text: Any) -> Item:
        asked, call = self._asked, self._asked.call
        item = Item(
            asked.door,
            asked.sent,
            asked.is_async,
            asked.dialect,
            self._batch.body_of_one(asked.body, text),
            policy=asked.policy,
            call=Call(namespace=call.namespace, provider=call.provider, model=call.model),
            endpoint=asked.endpoint,
            of=self,
            text=text,
        )
        item.canonical = item.canonical_now()
        item.call.key = item.canonical.key
        return item

    def answer(self) -> Whole:
        if len(self.items) == 1:
            vectors = [drive(self.items[0], self.items[0].ask)]
        else:
            vectors = Abreast(self.items, self.ask, is_async=False).drive()
        if (answer := self._joined(vectors)) is not None:
            return answer
        live: Whole = drive(self._past_the_cache(), self._asked.ask)
        return live

    async def aanswer(self) -> Whole:
        if len(self.items) == 1:
            vectors = [await adrive(self.items[0], self.items[0].aask)]
        else:
            vectors = await Abreast(self.items, self.aask, is_async=True).adrive()
        if (answer := self._joined(vectors)) is not None:
            return answer
        live: Whole = await adrive(self._past_the_cache(), self._asked.aask)
        return live

    def ask(self, items: list[Item]) -> list[Vector]:
        """What the model answers each of these with."""
        started = time.perf_counter()
        return self._replied(items, self._asking(items).ask(), started)

    async def aask(self, items: list[Item]) -> list[Vector]:
        started = time.perf_counter()
        return self._replied(items, await self._asking(items).aask(), started)

    def _asking(self, items: list[Item]) -> HttpRequest:
        """The request that asks for these, and for no others."""
        asked = self._asked
        for item in items:
            item.begun = not asked.is_last_attempt
        if self._is_of_all(items):
            return asked
        body = {**asked.body, self._batch.name: [item.text for item in items]}
        return asked.copied(sent=_sent_with(asked.sent, body), body=body)

    def _is_of_all(self, items: list[Item]) -> bool:
        """Whether what asks for these asks for all, as they were given."""
        return self._is_signed or len(items) == len(self._texts)

    def _past_the_cache(self) -> HttpRequest:
        """The request as it was given: what came for a part of it is no part of an answer."""
        asked, call = self._asked, self._asked.call
        asked.call = Call(namespace=call.namespace, provider=call.provider, model=call.model)
        asked.bypass = ReasonCode.NOT_WHOLE(why="vectors for some of the texts cannot be joined")
        return asked

    def _replied(self, items: list[Item], whole: Whole, started: float) -> list[Vector]:
        """What came for each of `items`, which were asked for at `started`."""
        seconds = (time.perf_counter() - started) / len(items)
        content = b""
        with suppress(Exception):  # (who asked is told that it cannot be decoded)
            content = self._asked.decoded(whole)
        for item in items:
            item.status = whole.head.status
        told = read_json(content)
        reply = Reply(whole, self._is_of_all(items), told if isinstance(told, dict) else {})
        asked = self._of_each if reply.is_of_all else items
        reply.refusal = self._why_refused(reply, content, asked)
        head = whole.head.to_json()
        rest = json.dumps(_without_tokens(self._rest_of(reply.told, []))).encode()
        shares = _shares(pricing.tokens_in(reply.told), items)
        return [
            Vector(reply.pieces.get(item.call.key, ""), head, rest, reply, tokens, seconds)
            for item, tokens in zip(items, shares, strict=True)
        ]

    def _why_refused(self, reply: Reply, content: bytes, items: list[Item]) -> Reason | None:
        """Why the reply is none of a piece for each of these. Else it has the pieces then."""
        try:
            pieces = self._batch.cut(reply.told, content.decode())
        except Exception as error:  # noqa: BLE001 - it may be of any shape
            why = error if isinstance(error, OutOfOrder) else type(error).__name__
            return ReasonCode.NOT_WHOLE(why=why)
        if len(pieces) != len(items):
            why = f"it has {len(pieces)} vectors for {len(items)} texts"
            return ReasonCode.NOT_WHOLE(why=why)
        reply.pieces = dict(zip((item.call.key for item in items), pieces, strict=True))
        return None

    def _rest_of(self, told: Mapping[str, Any], texts: list[Any]) -> dict[str, Any]:
        """What a response says besides the vectors. (Cohere's repeats the texts.)"""
        rest = {name: value for name, value in told.items() if name != self._batch.results}
        if self._batch.name in rest:
            rest[self._batch.name] = texts
        return rest

    def _joined(self, vectors: list[Vector]) -> Whole | None:
        """What the texts are answered with; None where vectors cannot be put into one response."""
        calls = [item.call for item in self.items]
        self._asked.call = _call_of(calls)
        self._asked.is_partly_stored = len({call.tier is None for call in calls}) > 1
        replies = [each.reply for each in vectors if each.reply is not None]
        for reply in replies:
            # (an error, too, is handed on as it came)
            if reply.is_of_all or reply.whole.head.status != OK:
                return reply.whole
        if any(reply.refusal for reply in replies):
            return None
        try:
            return self._with_all(vectors, replies[0] if replies else None)
        except Exception as error:  # noqa: BLE001 - law A: they may be of different kinds
            logger.warning("llmcache: vectors cannot be joined: %s", without_content(error))
            return None

    def _with_all(self, vectors: list[Vector], reply: Reply | None) -> Whole:
        """The response with all vectors; what else it says is what `reply` does, the live one."""
        of_keys = dict(zip((item.call.key for item in self.items), vectors, strict=True))
        pieces = [of_keys[item.call.key].piece for item in self._of_each]
        head = reply.whole.head if reply else Head.from_json(vectors[0].head)
        told = reply.told if reply else json.loads(vectors[0].rest)
        written = {n: json.dumps(value) for n, value in self._rest_of(told, self._texts).items()}
        written[self._batch.results] = self._batch.joined(pieces)
        body = with_members(written).encode()
        headers = [pair for pair in head.headers if pair[0].lower() not in DECODED]
        length = ("content-length", str(len(body)))
        return Whole(replace(head, headers=[*headers, length]), body)


def texts_of(asked: HttpRequest) -> Texts | None:
    """The texts of a request for vectors; None where it is answered as a whole."""
    batch = asked.dialect.batch if asked.dialect else None
    if batch is None or asked.bypass or asked.policy.mode is CacheMode.NO_STORE:
        return None
    try:
        texts = batch.split(asked.body)
        return None if texts is None else Texts(asked, batch, texts)
    except Exception as error:  # noqa: BLE001 - law A: the provider is asked all the same
        asked.refuse_key(error, asked.mode)
        return None


def one_of(asked: HttpRequest) -> HttpRequest:
    """The request of the one text where it is for the vector of one; else itself."""
    texts = texts_of(asked)
    return texts.items[0] if texts and len(texts.items) == 1 else asked


def _sent_with(sent: Any, body: Mapping[str, Any]) -> Any:
    """The request of an HTTP client, with another body."""
    headers = [pair for pair in sent.headers.raw if pair[0].lower() not in NOT_SENT]
    content = json.dumps(body).encode()
    return library_of(sent).Request(
        sent.method, sent.url, headers=headers, content=content, extensions=sent.extensions
    )


def _without_tokens(rest: Mapping[str, Any]) -> dict[str, Any]:
    """With a zero for each number of what tells the tokens."""
    return {
        name: _zeroed(value) if name in pricing.USAGES else value for name, value in rest.items()
    }


def _zeroed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _zeroed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_zeroed(each) for each in value]
    return 0 if type(value) in {int, float} else value


def _shares(tokens: int | None, items: list[Item]) -> list[int | None]:
    """The share of each, by its length; together they are as many as there were."""
    if tokens is None:
        return [None] * len(items)
    lengths = [len(str(item.text)) for item in items]
    ends = [tokens * end // sum(lengths) for end in accumulate(lengths, initial=0)]
    return [end - begin for begin, end in pairwise(ends)]


def _call_of(calls: list[Call]) -> Call:
    """The one that stands for all: that of a text that was asked for; else what expires first."""
    asked = (call for call in calls if call.tier is None)
    return next(asked, None) or min(calls, key=lambda call: call.expires or math.inf)
