"""The envelope around everything at rest: framed, bound to its key, checked, maybe encrypted.

    magic    3 bytes   b"LLC"
    version  1 byte    1
    kind     1 byte    what is inside: an answer or a request
    packing  1 byte    how the body is compressed
    cipher   1 byte    whether the body is encrypted
    key      32 bytes  SHA-256 of the canonical request
    created  8 bytes   seconds since the epoch, IEEE 754
    expires  8 bytes   likewise; infinity: never
    size     4 bytes   length of the body before compression
    ------- body -------
    clear:     BLAKE2b-128 over header and packed body, packed body
    encrypted: key id (4), nonce (12), AES-GCM over the packed body with the header as associated
               data (NIST SP 800-38D)

So an envelope under another key, of another kind or version, cut short or changed in one bit is
`CorruptEntry`, and nothing in it is used. A body of more than `MOST_UNPACKED` bytes is never
compressed, so whatever claims to be one, and is, is refused before anything is unpacked.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zlib
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from llmcache.conf import settings
from llmcache.exceptions import CorruptEntry

try:
    import zstandard
except ImportError:  # the extra "zstd" is not installed
    zstandard = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADER: Final = struct.Struct("!3sBBBB32sddI")
MAGIC: Final = b"LLC"
VERSION: Final = 1

ANSWER, REQUEST = 1, 2  # kinds
PLAIN, ZLIB, ZSTD = 0, 1, 2  # packings
CLEAR, AES_GCM = 0, 1  # ciphers

# Who can write to the store could fill the memory of who reads it: a thousandth of a body will do.
# Larger bodies lie there as they are, and so are bounded by what the store takes.
MOST_UNPACKED: Final = 32 * 1024 * 1024

CHECKSUM_BYTES, KEY_ID_BYTES, NONCE_BYTES = 16, 4, 12
# One takes longer to make than to use. Nobody else uses the one that is taken out.
_decompressors: deque[zstandard.ZstdDecompressor] = deque()


@dataclass(slots=True)
class Envelope:
    """What an envelope held, and until when it is fresh (seconds since the epoch)."""

    body: bytes
    created: float
    expires: float | None


def seal(
    kind: int, key: str, body: bytes, *, created: float, expires: float | None = None
) -> bytes:
    """The bytes to write for `body` under `key` (64 hex digits)."""
    packing, packed = _pack(body)
    encryption_keys = settings.encryption_keys
    header = HEADER.pack(
        MAGIC,
        VERSION,
        kind,
        packing,
        AES_GCM if encryption_keys else CLEAR,
        bytes.fromhex(key),
        created,
        math.inf if expires is None else expires,
        len(body),
    )
    if encryption_keys:
        newest, nonce = encryption_keys[0], os.urandom(NONCE_BYTES)
        return header + _key_id(newest) + nonce + _aead(newest).encrypt(nonce, packed, header)
    return header + _checksum(header, packed) + packed


def unseal(kind: int, key: str, data: bytes) -> Envelope:
    """What `seal` was given. Raises `CorruptEntry` for anything that it did not write."""
    if len(data) < HEADER.size:
        raise CorruptEntry("cut short")
    magic, version, sealed_kind, packing, cipher, sealed_key, created, expires, size = (
        HEADER.unpack_from(data)
    )
    if magic != MAGIC or version != VERSION:
        raise CorruptEntry("another format")
    if sealed_kind != kind or sealed_key != bytes.fromhex(key):
        raise CorruptEntry("stored under another key")
    packed = _open(cipher, data[: HEADER.size], data[HEADER.size :])
    body = packed if packing == PLAIN else _unpacked(packing, packed, size)
    if len(body) != size:
        raise CorruptEntry("the size does not match")
    return Envelope(body, created, None if math.isinf(expires) else expires)


def reseal(kind: int, key: str, data: bytes, *, expires: float | None) -> bytes:
    """`data` with another expiry. Raises `CorruptEntry` as `unseal` does."""
    envelope = unseal(kind, key, data)
    return seal(kind, key, envelope.body, created=envelope.created, expires=expires)


def _open(cipher: int, header: bytes, rest: bytes) -> bytes:
    encryption_keys = settings.encryption_keys
    if bool(encryption_keys) != (cipher == AES_GCM):
        # With keys configured, clear bytes are refused too: else whoever writes to the store
        # could put in answers of their own.
        raise CorruptEntry("encrypted, and no key is configured" if cipher else "not encrypted")
    if encryption_keys:
        return _decrypt(encryption_keys, rest, header)
    checksum, packed = rest[:CHECKSUM_BYTES], rest[CHECKSUM_BYTES:]
    if checksum != _checksum(header, packed):
        raise CorruptEntry("the checksum does not match")
    return packed


def _checksum(header: bytes, packed: bytes) -> bytes:
    checksum = hashlib.blake2b(header, digest_size=CHECKSUM_BYTES)
    checksum.update(packed)
    return checksum.digest()


def _pack(body: bytes) -> tuple[int, bytes]:
    if not settings.compress_above < len(body) <= MOST_UNPACKED:
        return PLAIN, body
    if zstandard is None:
        return ZLIB, zlib.compress(body)
    return ZSTD, zstandard.ZstdCompressor().compress(body)


def _unpacked(packing: int, packed: bytes, size: int) -> bytes:
    # The size from the header bounds what is unpacked, so no small entry fills the memory.
    try:
        if size > MOST_UNPACKED:
            raise CorruptEntry("larger than anything that is compressed")
        if packing == ZSTD and zstandard is not None:
            if zstandard.frame_content_size(packed) != size:  # it would be obeyed, not the header
                raise CorruptEntry("the size does not match")
            return _decompress(packed)
        if packing == ZLIB:
            return zlib.decompressobj().decompress(packed, size + 1)  # (0 would be no bound)
        raise CorruptEntry('compressed with zstd: install "django-llmcache[zstd]"')
    except (zlib.error, getattr(zstandard, "ZstdError", zlib.error)) as error:
        raise CorruptEntry("cannot be decompressed") from error


def _decompress(packed: bytes) -> bytes:
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor()
    try:
        return decompressor.decompress(packed)
    finally:
        _decompressors.append(decompressor)


def _decrypt(encryption_keys: tuple[bytes, ...], rest: bytes, header: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    key_id, rest = rest[:KEY_ID_BYTES], rest[KEY_ID_BYTES:]
    nonce, sealed = rest[:NONCE_BYTES], rest[NONCE_BYTES:]
    for encryption_key in encryption_keys:
        if _key_id(encryption_key) == key_id:
            try:
                return _aead(encryption_key).decrypt(nonce, sealed, header)
            except (InvalidTag, ValueError) as error:
                raise CorruptEntry("was changed after it had been encrypted") from error
    raise CorruptEntry("encrypted with a key that is not in LLMCACHE['ENCRYPTION_KEYS']")


@lru_cache(maxsize=16)
def _aead(encryption_key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(encryption_key)


@lru_cache(maxsize=16)
def _key_id(encryption_key: bytes) -> bytes:
    return hashlib.sha256(b"llmcache key id" + encryption_key).digest()[:KEY_ID_BYTES]
