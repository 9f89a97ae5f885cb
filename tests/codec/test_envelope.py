"""The envelope: bytes that say when something happened to them."""

from __future__ import annotations

import base64
import math
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import zstandard
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from llmcache.codec import envelope
from llmcache.codec.envelope import ANSWER, HEADER, REQUEST, seal, unseal
from llmcache.exceptions import CorruptEntry
from tests.support.codec import KEY, quick
from tests.support.paths import ROOT

OTHER_KEY = "f" * 64

OLD, NEW, STRANGE = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))


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
