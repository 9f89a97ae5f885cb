"""Answers to bytes and back: the same answer, or none."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import math
import pickle
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from types import SimpleNamespace
from typing import Any, Literal, cast
from uuid import UUID, uuid4

import pytest
import zstandard
from anthropic.types import Message
from django.test import override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    TypeAdapter,
    ValidationError,
    computed_field,
    field_validator,
)

from llmcache.codec import answers, completions, envelope
from llmcache.codec.answers import StoredAnswer, Validation
from llmcache.codec.completions import Dumped, NotReproducible
from llmcache.codec.envelope import ANSWER, HEADER, REQUEST, seal, unseal
from llmcache.codec.equality import same
from llmcache.exceptions import CorruptEntry
from tests.support.paths import ROOT

KEY = "0123456789abcdef" * 4
OTHER_KEY = "f" * 64
OLD, NEW, STRANGE = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))

quick = hypothesis_settings(deadline=None, max_examples=150)


def configured(**entries: Any) -> override_settings:
    return override_settings(LLMCACHE={"CACHE": None} | entries)


# The envelope


class TestEnvelope:
    @quick
    @given(
        body=st.binary(max_size=300).flatmap(lambda b: st.sampled_from([b, b * 20])),
        key=st.binary(min_size=32, max_size=32).map(bytes.hex),
        kind=st.sampled_from([ANSWER, REQUEST]),
        created=st.floats(0, 1e11),
        expires=st.none() | st.floats(0, 1e11),
        compress_above=st.sampled_from([0, 1, 100, 10**6]),
        encryption_keys=st.sampled_from([[], [OLD], [NEW, OLD]]),
    )
    def test_gives_back_what_was_sealed(
        self,
        body: bytes,
        key: str,
        kind: int,
        created: float,
        expires: float | None,
        compress_above: int,
        encryption_keys: list[str],
    ) -> None:
        with configured(COMPRESS_ABOVE=compress_above, ENCRYPTION_KEYS=encryption_keys):
            opened = unseal(kind, key, seal(kind, key, body, created=created, expires=expires))
        assert (opened.body, opened.created, opened.expires) == (body, created, expires)

    def test_is_fresh_until_it_expires(self) -> None:
        opened = unseal(ANSWER, KEY, seal(ANSWER, KEY, b"x", created=1.0, expires=10.0))
        assert opened.is_fresh(9.999)
        assert not opened.is_fresh(10.0)
        assert unseal(ANSWER, KEY, seal(ANSWER, KEY, b"x", created=1.0)).is_fresh(1e15)

    def test_compresses_above_the_threshold_only(self) -> None:
        body = b"a" * 1000
        with configured(COMPRESS_ABOVE=1000):
            assert body in seal(ANSWER, KEY, body, created=0)
        with configured(COMPRESS_ABOVE=999):
            assert len(seal(ANSWER, KEY, body, created=0)) < 200

    def test_is_refused_under_another_key_or_as_another_kind(self) -> None:
        data = seal(ANSWER, KEY, b"body", created=0)
        for kind, key in [(ANSWER, OTHER_KEY), (REQUEST, KEY)]:
            with pytest.raises(CorruptEntry, match="stored under another key"):
                unseal(kind, key, data)

    @pytest.mark.parametrize("offset", [0, 3], ids=["magic", "version"])
    def test_of_another_format_is_refused(self, offset: int) -> None:
        data = bytearray(seal(ANSWER, KEY, b"body", created=0))
        data[offset] += 1
        with pytest.raises(CorruptEntry, match="another format"):
            unseal(ANSWER, KEY, bytes(data))


SEALED: dict[str, dict[str, Any]] = {
    "clear": {},
    "compressed": {"COMPRESS_ABOVE": 0},
    "encrypted": {"ENCRYPTION_KEYS": [NEW, OLD]},
    "compressed and encrypted": {"COMPRESS_ABOVE": 0, "ENCRYPTION_KEYS": [NEW]},
}


@pytest.fixture(params=list(SEALED.values()), ids=list(SEALED))
def small(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """A small envelope, in the settings that it was made with."""
    with configured(**request.param):
        yield seal(ANSWER, KEY, b'{"answer": 42}', created=1e9, expires=2e9)


class TestDamage:
    def test_a_flipped_bit_is_noticed_wherever_it_is(self, small: bytes) -> None:
        for position in range(len(small)):
            for bit in range(8):
                damaged = bytearray(small)
                damaged[position] ^= 1 << bit
                with pytest.raises(CorruptEntry):
                    unseal(ANSWER, KEY, bytes(damaged))

    def test_a_missing_end_is_noticed_wherever_it_begins(self, small: bytes) -> None:
        for length in range(len(small)):
            with pytest.raises(CorruptEntry):
                unseal(ANSWER, KEY, small[:length])

    def test_a_longer_end_is_noticed(self, small: bytes) -> None:
        for more in (b"\0", b"x" * 100, small):
            with pytest.raises(CorruptEntry):
                unseal(ANSWER, KEY, small + more)

    def test_two_parts_put_together_are_noticed(self, small: bytes) -> None:
        """The header of one entry, say with a later expiry, before the body of another."""
        other = seal(ANSWER, KEY, b'{"answer": 43}', created=1e9, expires=9e9)
        for cut in (HEADER.size, HEADER.size + 16):
            with pytest.raises(CorruptEntry):
                unseal(ANSWER, KEY, other[:cut] + small[cut:])

    @quick
    @given(st.binary(max_size=200), st.sampled_from([[], [OLD]]))
    def test_nothing_but_corrupt_entry_is_raised(self, data: bytes, keys: list[str]) -> None:
        header = HEADER.pack(b"LLC", 1, ANSWER, 2, bool(keys), bytes.fromhex(KEY), 0, 0, 10)
        with configured(ENCRYPTION_KEYS=keys):
            for damaged in (data, header + data):
                with pytest.raises(CorruptEntry):
                    unseal(ANSWER, KEY, damaged)


class TestEncryption:
    def test_hides_the_body(self) -> None:
        with configured(ENCRYPTION_KEYS=[OLD]):
            assert b"secret" not in seal(ANSWER, KEY, b"my secret", created=0)

    def test_after_a_rotation_old_entries_are_read_and_new_ones_use_the_new_key(self) -> None:
        with configured(ENCRYPTION_KEYS=[OLD]):
            old = seal(ANSWER, KEY, b"old", created=0)
        with configured(ENCRYPTION_KEYS=[NEW, OLD]):
            assert unseal(ANSWER, KEY, old).body == b"old"
            new = seal(ANSWER, KEY, b"new", created=0)
        with configured(ENCRYPTION_KEYS=[NEW]):
            assert unseal(ANSWER, KEY, new).body == b"new"
            with pytest.raises(CorruptEntry, match=r"not in LLMCACHE\['ENCRYPTION_KEYS'\]"):
                unseal(ANSWER, KEY, old)

    @pytest.mark.parametrize("size", [16, 24, 32])
    def test_takes_every_size_of_aes_key(self, size: int) -> None:
        with configured(ENCRYPTION_KEYS=[base64.b64encode(b"k" * size).decode()]):
            assert unseal(ANSWER, KEY, seal(ANSWER, KEY, b"x", created=0)).body == b"x"

    def test_a_key_of_the_same_id_and_other_content_does_not_open_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(envelope, "_key_id", lambda key: b"same")
        with configured(ENCRYPTION_KEYS=[OLD]):
            data = seal(ANSWER, KEY, b"x", created=0)
        with (
            configured(ENCRYPTION_KEYS=[STRANGE]),
            pytest.raises(CorruptEntry, match="was changed after"),
        ):
            unseal(ANSWER, KEY, data)

    def test_clear_entries_are_refused_once_keys_are_configured(self) -> None:
        data = seal(ANSWER, KEY, b"x", created=0)
        with configured(ENCRYPTION_KEYS=[OLD]), pytest.raises(CorruptEntry, match="not encrypted"):
            unseal(ANSWER, KEY, data)

    def test_encrypted_entries_are_refused_without_keys(self) -> None:
        with configured(ENCRYPTION_KEYS=[OLD]):
            data = seal(ANSWER, KEY, b"x", created=0)
        with pytest.raises(CorruptEntry, match="encrypted, and no key is configured"):
            unseal(ANSWER, KEY, data)

    def test_no_nonce_is_used_twice(self) -> None:
        place = slice(HEADER.size + 4, HEADER.size + 16)
        with configured(ENCRYPTION_KEYS=[OLD]):
            nonces = {seal(ANSWER, KEY, b"x", created=0)[place] for _ in range(2000)}
        assert len(nonces) == 2000


def forged(packing: int, packed: bytes, size: int) -> bytes:
    """What somebody with access to the store, and no encryption key to know, could write."""
    header = HEADER.pack(b"LLC", 1, ANSWER, packing, 0, bytes.fromhex(KEY), 0, math.inf, size)
    return header + envelope._checksum(header, packed) + packed


class TestCompression:
    @pytest.mark.parametrize("size", [0, 10, 1000])
    @pytest.mark.parametrize("kind", ["zlib", "zstd", "zstd of unknown size"])
    def test_a_small_entry_does_not_fill_the_memory(self, kind: str, size: int) -> None:
        content = bytes(50_000_000)
        unknown = zstandard.ZstdCompressor(write_content_size=False)
        packing, packed = {
            "zlib": (envelope.ZLIB, zlib.compress(content)),
            "zstd": (envelope.ZSTD, zstandard.ZstdCompressor().compress(content)),
            "zstd of unknown size": (envelope.ZSTD, unknown.compress(content)),
        }[kind]
        bomb = forged(packing, packed, size)
        del content
        tracemalloc.start()
        try:
            with pytest.raises(CorruptEntry):
                unseal(ANSWER, KEY, bomb)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("kind", ["zlib", "zstd"])
    def test_nor_does_one_that_tells_its_size(self, kind: str) -> None:
        content = bytes(envelope.MOST_UNPACKED + 1)
        packing, packed = {
            "zlib": (envelope.ZLIB, zlib.compress(content)),
            "zstd": (envelope.ZSTD, zstandard.ZstdCompressor().compress(content)),
        }[kind]
        bomb = forged(packing, packed, len(content))
        del content
        tracemalloc.start()
        try:
            with pytest.raises(CorruptEntry, match="larger than anything"):
                unseal(ANSWER, KEY, bomb)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("more", [0, 1])
    def test_a_large_body_comes_back(self, more: int) -> None:
        body = bytes(envelope.MOST_UNPACKED + more)
        sealed = seal(ANSWER, KEY, body, created=0)
        assert (len(sealed) > len(body)) is bool(more)
        assert unseal(ANSWER, KEY, sealed).body == body

    @pytest.mark.parametrize("packing", [envelope.PLAIN, envelope.ZLIB, envelope.ZSTD])
    def test_a_size_that_does_not_match_is_refused(self, packing: int) -> None:
        pack: dict[int, Callable[[bytes], bytes]] = {
            envelope.PLAIN: bytes,
            envelope.ZLIB: zlib.compress,
            envelope.ZSTD: zstandard.ZstdCompressor().compress,
        }
        packed = pack[packing](b"body")
        assert unseal(ANSWER, KEY, forged(packing, packed, 4)).body == b"body"
        for size in (3, 5):
            with pytest.raises(CorruptEntry):
                unseal(ANSWER, KEY, forged(packing, packed, size))

    @pytest.mark.parametrize("packing", [envelope.ZLIB, envelope.ZSTD])
    def test_what_cannot_be_decompressed_is_refused(self, packing: int) -> None:
        for packed in (b"", b"no such thing", b"\x28\xb5\x2f\xfd", b"x\x9c"):
            with pytest.raises(CorruptEntry):
                unseal(ANSWER, KEY, forged(packing, packed, 4))

    @configured(COMPRESS_ABOVE=10)
    def test_threads_do_not_share_a_decompressor(self) -> None:
        bodies = [random.Random(number).randbytes(100_000).hex().encode() for number in range(8)]
        sealed = [seal(ANSWER, KEY, body, created=0) for body in bodies]

        def unsealed(number: int) -> set[bytes]:
            return {unseal(ANSWER, KEY, sealed[number]).body for _ in range(50)}

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(unsealed, range(8))) == [{body} for body in bodies]

    def test_an_unknown_packing_is_refused(self) -> None:
        with pytest.raises(CorruptEntry):
            unseal(ANSWER, KEY, forged(9, b"body", 4))

    @configured(COMPRESS_ABOVE=10)
    def test_falls_back_to_zlib_without_zstandard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        by_zstd = seal(ANSWER, KEY, b"a" * 100, created=0)
        monkeypatch.setattr(envelope, "zstandard", None)
        by_zlib = seal(ANSWER, KEY, b"a" * 100, created=0)
        assert by_zlib[5] == envelope.ZLIB
        assert unseal(ANSWER, KEY, by_zlib).body == b"a" * 100
        with pytest.raises(CorruptEntry, match=r'install "django-llmcache\[zstd\]"'):
            unseal(ANSWER, KEY, by_zstd)
        monkeypatch.undo()
        assert unseal(ANSWER, KEY, by_zlib).body == b"a" * 100

    def test_zstandard_may_be_missing_at_import(self) -> None:
        program = (
            "import sys; sys.modules['zstandard'] = None\n"
            "from llmcache.codec import envelope; print(envelope.zstandard)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout.strip() == "None", done.stderr


# Sameness


class Liar(BaseModel):
    value: int

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    title: str = ""
    _draft: bool = PrivateAttr(False)


class Alike(BaseModel):
    title: str = ""


@dataclass
class Place:
    name: str
    visits: Any = 0


@dataclass(eq=False)
class Unequal:
    name: str


def loose(*, draft: bool) -> Loose:
    model = Loose()
    model._draft = draft
    return model


NAN = float("nan")
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
NOON_ELSEWHERE = NOON.astimezone(timezone(timedelta(hours=1)))

NOT_THE_SAME: list[tuple[Any, Any]] = [
    *[(1, True), (1, 1.0), (True, 1.0), (0, False), (1, "1"), (b"a", "a"), (None, 0), (1, 2)],
    *[(0.0, -0.0), (NAN, 1.0), (Decimal("1.0"), Decimal("1.00")), (Decimal(0), Decimal("-0"))],
    *[(NOON, NOON_ELSEWHERE), (NOON, NOON.replace(tzinfo=None)), (NOON.date(), NOON)],
    *[([1], (1,)), ([1], [True]), ([1], [1, 1]), ([], [None]), ("ab", ["a", "b"]), ("a", "b")],
    *[({1: 2}, {True: 2}), ({1: 2}, {1: 2.0}), ({"a": 1}, {}), ({"a": 1}, {"b": 1})],
    *[({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"a": 1}, OrderedDict(a=1))],
    *[({1}, {True}), ({1, 9}, {1.0, 9}), ({1}, frozenset({1})), ({1}, {1, 2})],
    *[({0.0}, {-0.0}), ({Decimal("1.0")}, {Decimal("1.00")}), ({NOON}, {NOON_ELSEWHERE})],
    *[({(1,)}, {(True,)}), ({(0.0,)}, {(-0.0,)}), ({frozenset({1})}, {frozenset({1.0})})],
    *[(Liar(value=1), Liar(value=2)), ([Liar(value=1)], [Liar(value=2)])],
    *[(Loose(), Loose(title="")), (Loose(), Alike()), (Loose(a=1), Loose(a=True))],
    *[(Loose(a=1), Loose(b=1)), (loose(draft=True), loose(draft=False))],
    *[(Place("a", 1), Place("a", True)), (Place("a"), Place("b"))],
    (SecretStr("a"), SecretStr("b")),
]


@pytest.mark.parametrize(("left", "right"), NOT_THE_SAME, ids=repr)
def test_what_differs_is_not_the_same(left: Any, right: Any) -> None:
    assert not same(left, right)
    assert not same(right, left)
    assert not same({"in": [left]}, {"in": [right]})


@pytest.mark.parametrize(
    "value",
    [
        *[None, True, 1, 1.5, NAN, float("-inf"), -0.0, "a", b"a", bytearray(b"a"), Decimal("NaN")],
        *[NOON, date(2024, 1, 1), timedelta(1), UUID(int=1), AnyUrl("https://example.com"), (1, 2)],
        *[{1, "a", 2.5, None}, frozenset({(1, "x")}), {"a": {"b": [1, {2}]}}, {1: 1, "1": 2}],
        *[Liar(value=1), Loose(title="a", more=[1]), loose(draft=True), Place("a", [1])],
        Unequal("a"),
    ],
)
def test_a_copy_is_the_same(value: Any) -> None:
    assert same(value, copy.deepcopy(value))


def test_what_instructor_attaches_is_left_out() -> None:
    left, right = Alike(), Alike()
    object.__setattr__(left, "_raw_response", 1)
    object.__setattr__(right, "_total_usage", 2)
    assert same(left, right)
    object.__setattr__(right, "_other", 2)
    assert not same(left, right)


# Completions

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "small",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Grüße", "reasoning": {"made": ["up"]}},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 0.1},
    "x_groq": {"id": "req"},
    "system_fingerprint": None,
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, {"b": None}]}},
        {"type": "text", "text": "?", "of_the_future": [1]},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2, "brand_new": 3},
}


class Usage(BaseModel):
    tokens: int = Field(alias="tokenCount")


class Own(BaseModel):
    """A completion of an SDK that builds models by validating."""

    text: str
    usage: Usage | None = None

    class Inner(BaseModel):
        text: str = ""


LIVE: dict[str, Callable[[], BaseModel]] = {
    "openai": lambda: ChatCompletion.construct(**CHAT),
    "anthropic": lambda: Message.construct(**MESSAGE),
    "other": lambda: Own.model_validate({"text": "a", "usage": {"tokenCount": 3}}),
    "nested class": lambda: Own.Inner(text="a"),
}


@pytest.fixture(params=list(LIVE.values()), ids=list(LIVE))
def live(request: pytest.FixtureRequest) -> BaseModel:
    completion: BaseModel = request.param()
    return completion


@pytest.fixture
def pending(live: BaseModel) -> Any:
    return completions.load(completions.dump(live))


LOOKS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda it, protocol=protocol: pickle.loads(  # type: ignore[misc]
            pickle.dumps(it, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "model_copy": lambda it: it.model_copy(),
    "repr": repr,
    "str": str,
    "dict": dict,
    "vars": vars,
    "dir": dir,
    "class": lambda it: it.__class__,
    "fields set": lambda it: it.model_fields_set,
    "extras": lambda it: it.model_extra,
    "model_dump": lambda it: it.model_dump(),
    "model_dump_json": lambda it: it.model_dump_json(),
    "exclude unset": lambda it: it.model_dump(exclude_unset=True),
    "in another model": lambda it: RootModel[Any](it).model_dump_json(),
}


class TestPendingCompletion:
    def test_is_an_instance_of_the_sdks_class(self, live: BaseModel, pending: Any) -> None:
        assert isinstance(pending, type(live))
        assert type(pending) is not type(live)  # it is pending still: `isinstance` built nothing

    def test_turns_into_exactly_that_class_when_looked_at(
        self, live: BaseModel, pending: Any
    ) -> None:
        _ = pending.model_fields_set
        assert type(pending) is type(live)

    def test_equals_the_live_one_from_both_sides(self, live: BaseModel) -> None:
        dumped = completions.dump(live)
        assert completions.load(dumped) == live
        assert live == completions.load(dumped)
        assert completions.load(dumped) == completions.load(dumped)

    @pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
    def test_looks_like_the_live_one(
        self, live: BaseModel, pending: Any, look: Callable[[Any], Any]
    ) -> None:
        assert look(pending) == look(live)

    @pytest.mark.parametrize("name", ["copy", "deepcopy", "pickle 2", "pickle 5", "model_copy"])
    def test_a_copy_is_of_the_sdks_class(self, live: BaseModel, pending: Any, name: str) -> None:
        twin = LOOKS[name](pending)
        assert twin.model_dump() == live.model_dump()
        assert type(twin) is type(live)
        assert same(twin, live)

    def test_serializes_by_its_type(self, live: BaseModel) -> None:
        adapter: TypeAdapter[Any] = TypeAdapter(type(live))
        loaded = completions.load(completions.dump(live))
        assert (
            adapter.dump_json(loaded, warnings=False)
            == live.model_dump_json(warnings=False).encode()
        )

    def test_may_be_changed(self, pending: Any) -> None:
        twin = copy.deepcopy(pending)
        name = next(iter(type(pending).model_fields))
        setattr(pending, name, "changed")
        assert getattr(pending, name) == "changed"
        assert pending != twin

    def test_has_no_attributes_of_its_own(self, pending: Any) -> None:
        with pytest.raises(AttributeError):
            _ = pending.no_such_attribute

    def test_matches_a_class_pattern(self) -> None:
        match completions.load(completions.dump(LIVE["openai"]())):
            case ChatCompletion(id=found):
                assert found == "chatcmpl-1"
            case _:
                pytest.fail("no match")

    def test_keeps_what_the_sdk_does_not_know(self) -> None:
        chat = completions.load(completions.dump(LIVE["openai"]()))
        assert chat.choices[0].message.reasoning == {"made": ["up"]}
        assert chat.usage.cost == 0.1
        assert chat.x_groq == {"id": "req"}
        message = completions.load(completions.dump(LIVE["anthropic"]()))
        assert message.content[0].input == {"a": [1, {"b": None}]}
        assert message.content[1].of_the_future == [1]
        assert message.usage.brand_new == 3

    @pytest.mark.parametrize("name", ["openai", "anthropic", "other"])
    def test_many_threads_may_look_first(self, name: str) -> None:
        live, interval = LIVE[name](), sys.getswitchinterval()
        dumped, wanted = completions.dump(live), live.model_dump()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(30):
                shared, start = completions.load(dumped), threading.Barrier(8)
                seen: list[Any] = []

                def look(shared: Any = shared, start: Any = start, seen: Any = seen) -> None:
                    start.wait()
                    try:
                        seen.append((shared.model_dump(), type(shared)))
                    except Exception as error:  # noqa: BLE001 - shown by the assertion
                        seen.append(error)

                threads = [threading.Thread(target=look) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert seen == [(wanted, type(live))] * 8
        finally:
            sys.setswitchinterval(interval)

    def test_survives_a_class_that_has_changed_since(self) -> None:
        """As after an upgrade of the SDK: what is there is shown, and nothing is raised."""
        dumped = Dumped(f"{__name__}:Own", b'{"text": ["was", "text"], "id": 1}')
        loaded = completions.load(dumped)
        assert loaded.text == ["was", "text"]
        assert type(loaded) is Own


class TestUnknownClass:
    @pytest.mark.parametrize(
        "path",
        ["no.such.module:Thing", "json:JSONDecoder", "json:nothing", f"{__name__}:ROOT", ":", "x"],
    )
    def test_comes_back_as_a_namespace(self, path: str) -> None:
        loaded = completions.load(Dumped(path, b'{"id": "a", "usage": {"tokens": [{"n": 1}]}}'))
        assert type(loaded) is SimpleNamespace
        assert loaded.id == "a"
        assert loaded.usage.tokens[0].n == 1

    @pytest.mark.parametrize(
        "path", ["wave:Thing", "llmcache.admin:Thing", "tests.lazy:Thing", "tests.lazy:Thing.More"]
    )
    def test_no_module_named_in_the_store_is_imported(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def imports(name: str) -> Any:
            raise AssertionError("a lazy module would import here")

        lazy: Any = type(sys)("tests.lazy")
        lazy.__getattr__ = imports  # PEP 562
        monkeypatch.setitem(sys.modules, "tests.lazy", lazy)
        monkeypatch.delitem(sys.modules, "wave", raising=False)
        before = set(sys.modules)
        assert type(completions.load(Dumped(path, b"{}"))) is SimpleNamespace
        assert set(sys.modules) == before

    def test_none_stays_none(self) -> None:
        assert completions.dump(None) is None
        assert completions.load(None) is None


class Odd(BaseModel):
    shown: str = ""
    nan: float = 0.0
    anything: Any = None


def local_completion() -> BaseModel:
    class Local(BaseModel):
        text: str = "a"

    return Local()


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ({"id": {1, 2}}, "a dict does not come back"),
        ({1: "a"}, "a dict does not come back"),
        (SimpleNamespace(id="a"), "the completion is a SimpleNamespace"),
        (Odd(nan=NAN), "does not come back"),
        (Odd(anything={1, 2}), "does not come back"),
        (Odd(anything=NOON), "does not come back"),
        (Odd(anything=object()), "does not come back"),
        (Odd(anything="\ud800"), "does not come back"),
        (Odd.model_construct(shown=cast(Any, 3)), "does not come back"),
        (local_completion(), "Local"),
    ],
    ids=repr,
)
def test_a_completion_that_would_come_back_different_is_refused(completion: Any, why: str) -> None:
    with pytest.raises(NotReproducible, match=why):
        completions.dump(completion)


# Answers


class Kind(Enum):
    BUG = "bug"
    WISH = "wish"


class Level(StrEnum):
    HIGH = "high"


class Line(BaseModel):
    text: str
    price: Decimal


class Aliased(BaseModel):
    number: int = Field(alias="theNumber")


class AliasedTwice(BaseModel):
    number: int = Field(validation_alias="in", serialization_alias="in")


class Renamed(BaseModel):
    a: int = Field(0, validation_alias="in", serialization_alias="out")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(0, alias="theNumber")


class Defaults(BaseModel):
    title: str
    priority: int = 3
    tags: list[str] = Field(default_factory=list)
    note: str | None = None


class Everything(BaseModel):
    lines: list[Line]
    by_name: dict[str, Line]
    by_number: dict[int, str]
    kind: Kind
    level: Level
    at: datetime
    day: date
    for_: timedelta
    id: UUID
    pair: tuple[int, str]
    either: int | str | bool
    literal: Literal["a", 1]
    numbers: set[int]
    raw: bytes
    place: Place
    url: AnyUrl
    anything: Any = None


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    title: str


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class Rigid(BaseModel):
    title: str

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("nothing may be set")


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Numbers(RootModel[list[int]]):
    pass


class Slotted(BaseModel):
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)
    title: str


EVERYTHING = Everything(
    lines=[Line(text="a", price=Decimal("1.10"))],
    by_name={
        "z": Line(text="b", price=Decimal("0.00")),
        "a": Line(text="c", price=Decimal(100)),
    },
    by_number={1: "a", -2: "b"},
    kind=Kind.WISH,
    level=Level.HIGH,
    at=datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    day=date(2024, 2, 29),
    for_=timedelta(days=1, microseconds=1),
    id=UUID(int=7),
    pair=(1, "x"),
    either="1",
    literal=1,
    numbers={3, 1},
    raw=b"abc",
    place=Place("here", 2),
    url=AnyUrl("https://example.com/ü?q=1"),
    anything={"a": [1, 2.5, None, True, "x"]},
)
# As an answer comes about: from JSON.
EVERYTHING = Everything.model_validate_json(EVERYTHING.model_dump_json())


def validation(cls: type[BaseModel], **kwargs: Any) -> Validation:
    return Validation(cls.model_validate_json, kwargs.get("context"), kwargs.get("strict"))


def from_store(answer: BaseModel, **kwargs: Any) -> BaseModel:
    """`answer` through all that stands between `create` and a hit."""
    how = validation(type(answer), **kwargs)
    body = answers.encode(answer, how).pack()
    data = seal(ANSWER, KEY, body, created=0)
    return answers.decode(StoredAnswer.unpack(unseal(ANSWER, KEY, data).body), how)


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize(
    "answer",
    [
        Aliased.model_validate({"theNumber": 7}),
        AliasedTwice.model_validate({"in": 7}),
        Renamed.model_validate({"in": 7}),
        ByName.model_validate({"number": 7}),
        Defaults(title="a"),
        Defaults(title="a", priority=3),
        Defaults(title="a", note=None),
        Defaults(title="\U0001f600 ünï\0code \u2028", note=""),
        EVERYTHING,
        Frozen(title="a"),
        Computed(width=3),
        Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])]),
        Loose(title="a", more={"x": [1]}),
        Numbers([3, 1, 2]),
        Slotted(title="a"),
        Liar(value=1),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_an_answer_comes_back_the_same(answer: BaseModel, strict: bool | None) -> None:
    hit = from_store(answer, strict=strict)
    assert same(hit, answer)
    assert hit.model_fields_set == answer.model_fields_set
    assert hit.model_dump_json(by_alias=True) == answer.model_dump_json(by_alias=True)


@quick
@given(st.builds(Defaults, note=st.none() | st.text()) | st.builds(Loose, more=st.floats()))
def test_an_answer_comes_back_the_same_or_not_at_all(answer: BaseModel) -> None:
    try:
        assert same(from_store(answer), answer)
    except NotReproducible:
        assert not all(map(math.isfinite, (answer.model_extra or {}).values()))


def attach(answer: BaseModel, **attributes: Any) -> BaseModel:
    for name, value in attributes.items():
        object.__setattr__(answer, name, value)
    return answer


@pytest.mark.parametrize("cls", [Defaults, Frozen, Rigid, Loose, Slotted])
def test_the_completion_and_the_usage_come_back_with_the_answer(cls: Any) -> None:
    usage = Usage(tokenCount=7)
    hit: Any = from_store(
        attach(cls(title="a"), _raw_response=LIVE["openai"](), _total_usage=usage)
    )
    assert isinstance(hit._raw_response, ChatCompletion)
    assert hit._raw_response == LIVE["openai"]()
    assert hit._total_usage == usage
    assert type(hit._total_usage) is Usage


def test_an_answer_without_completion_has_none() -> None:
    assert not hasattr(from_store(Defaults(title="a")), "_raw_response")


def test_the_context_reaches_the_validators() -> None:
    class Quoted(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def _is_in_the_source(cls, text: str, info: Any) -> str:
            if text not in info.context["source"]:
                raise ValueError("not a quotation")
            return text

    answer = Quoted.model_validate({"text": "b"}, context={"source": "abc"})
    stored = answers.encode(answer, validation(Quoted, context={"source": "abc"}))
    with pytest.raises(ValidationError, match="not a quotation"):
        answers.decode(stored, validation(Quoted, context={"source": "xyz"}))


class TimesTen(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _times_ten(cls, a: int) -> int:
        return a * 10


class Picky(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _small(cls, a: int) -> int:
        if a >= 10:
            raise ValueError("too large")
        return a + 9


class Hiding(BaseModel):
    title: str
    hidden: str = Field("", exclude=True)


class Secret(BaseModel):
    token: SecretStr


class Identified(BaseModel):
    title: str
    id: UUID = Field(default_factory=uuid4)


class Blob(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    blob: Any = None


def with_private(title: str) -> Slotted:
    answer = Slotted(title=title)
    answer._cache["a"] = 1
    return answer


NOT_REPRODUCIBLE: dict[str, tuple[BaseModel, str]] = {
    "validator that is not idempotent": (TimesTen(a=1), "would come back different"),
    "validator that refuses its result": (Picky(a=1), "its own JSON does not validate"),
    "excluded field that was set": (Hiding(title="a", hidden="b"), "would come back different"),
    "secret": (Secret(token=SecretStr("hunter2")), "would come back different"),
    "private attribute that was set": (with_private("a"), "would come back different"),
    "id that the model did not give": (Identified(title="a"), "would come back different"),
    "NaN": (Loose(more=NAN), "would come back different"),
    "type that JSON lacks": (Blob(blob=(1, 2)), "would come back different"),
    "set": (Blob(blob={1}), "would come back different"),
    "object": (Blob(blob=object()), "has no JSON form"),
    "lone surrogate": (Defaults(title="\ud800"), "has no JSON form"),
    "other class": (Blob(blob=Line(text="a", price=Decimal(1))), "would come back different"),
    "completion that is no model": (
        attach(Defaults(title="a"), _raw_response=[1]),
        "the completion is a list",
    ),
}


@pytest.mark.parametrize(("answer", "why"), NOT_REPRODUCIBLE.values(), ids=NOT_REPRODUCIBLE.keys())
def test_an_answer_that_would_come_back_different_is_refused(answer: BaseModel, why: str) -> None:
    with pytest.raises(NotReproducible, match=why):
        answers.encode(answer, validation(type(answer)))


@pytest.mark.parametrize(
    "answer", [Hiding(title="a"), Identified(title="a", id=UUID(int=1))], ids=repr
)
def test_what_was_not_used_of_it_does_no_harm(answer: BaseModel) -> None:
    assert same(from_store(answer), answer)


def test_an_answer_of_another_class_is_refused() -> None:
    with pytest.raises(NotReproducible):
        answers.encode(Alike(title="a"), validation(Loose))


def test_an_entry_that_does_not_validate_any_more_says_so() -> None:
    stored = answers.encode(Loose(more=1), validation(Loose))
    with pytest.raises(ValidationError):
        answers.decode(stored, validation(Line))


def test_nothing_at_rest_is_pickled() -> None:
    stored = answers.encode(
        attach(Defaults(title="a"), _raw_response=LIVE["openai"]()), validation(Defaults)
    )
    assert json.loads(stored.answer) == {"title": "a"}
    assert stored.completion is not None
    assert json.loads(stored.completion.data) == CHAT


DUMPED = st.none() | st.builds(Dumped, st.text(min_size=1), st.binary())
STORED = st.builds(
    StoredAnswer, st.binary(), DUMPED, DUMPED, st.booleans(), st.binary(), st.binary(max_size=30)
)


class TestPacking:
    @quick
    @given(STORED)
    def test_gives_back_what_was_packed(self, stored: StoredAnswer) -> None:
        assert StoredAnswer.unpack(stored.pack()) == stored

    @quick
    @given(st.lists(st.integers(0, 6), min_size=7, max_size=7), st.binary(max_size=30))
    def test_nothing_but_corrupt_entry_is_raised(self, lengths: list[int], rest: bytes) -> None:
        for body in (rest, struct.pack("!?7I", False, *lengths) + rest):
            with contextlib.suppress(CorruptEntry):
                assert isinstance(StoredAnswer.unpack(body), StoredAnswer)

    @quick
    @given(STORED, st.data())
    def test_a_body_of_another_length_is_refused(
        self, stored: StoredAnswer, data: st.DataObject
    ) -> None:
        body = stored.pack()
        cut = data.draw(st.integers(0, len(body) - 1))
        for damaged in (body[:cut], body + b"x"):
            with pytest.raises(CorruptEntry):
                StoredAnswer.unpack(damaged)

    def test_a_class_name_that_is_no_text_is_refused(self) -> None:
        body = struct.pack("!?7I", False, 2, 0, 1, 2, 0, 0, 0) + b"{}" + b"\xff" + b"{}"
        with pytest.raises(CorruptEntry):
            StoredAnswer.unpack(body)
