"""What passes over real sockets: codings, lengths, proxies, and providers that fall silent."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import groq
import httpx
import httpx2
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import llmcache
from llmcache.models import CacheEntry
from tests.support.http import Sdk, chat
from tests.support.http import groq as make_groq
from tests.support.http import openai as make_openai
from tests.support.provider import QUESTION, streamed, whole
from tests.support.wire import CODINGS, Proxy, Served

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),  # of the SDKs, about what is theirs
]

#: The SDKs of the two libraries.
SDKS = {
    "httpx": Sdk(make_groq, chat, lambda client, text: chat(client, text, stream=True)),
    "httpx2": Sdk(make_openai, chat, lambda client, text: chat(client, text, stream=True)),
}


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return SDKS[request.param]


def coded(coding: str, *, is_stream: bool) -> Served:
    """A body in that coding, in two parts."""
    body = CODINGS[coding](b"".join(streamed()) if is_stream else whole())
    kind = "text/event-stream" if is_stream else "application/json"
    parts = [body[:50], body[50:]]
    return Served(parts, chunked=is_stream, content_type=kind, content_encoding=coding)


def told(ask: Callable[[], Any]) -> Any:
    """What comes of asking; the kind of the error, where that is what comes."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - that of the SDK, whatever it is
        return type(error)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_coded_answer_is_to_an_sdk_what_it_is_without(
    sdk: Sdk, coding: str, is_stream: bool, is_async: bool
) -> None:
    """Also where the library cannot decode it: that is not kept."""
    way: Any = sdk.streams if is_stream else sdk.answers
    with coded(coding, is_stream=is_stream) as model:
        plain = sdk.make(model.root, is_async)
        asked = lambda client: told(lambda: way(client, ["Which city?"], is_async=is_async))  # noqa: E731
        expected, before = asked(plain), len(model.asked)
        is_read = not isinstance(expected, type) and expected != [[]]
        wrapped = [llmcache.wrap(sdk.make(model.root, is_async)) for _ in range(2)]
        assert [asked(client) for client in wrapped] == [expected, expected]
        assert len(model.asked) - before == (1 if is_read else 2)
    assert is_read or coding in {"br", "zstd"}
    assert CacheEntry.objects.count() == is_read


def posted(client: Any, root: str, *, is_stream: bool) -> tuple[Any, bytes]:
    """The headers of the response, and its body."""
    asked = QUESTION | {"stream": is_stream}
    with client.stream("POST", f"{root}/v1/chat/completions", json=asked) as response:
        return response.headers, b"".join(response.iter_bytes())


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_no_header_of_a_hit_tells_of_the_way_of_the_live_one(
    library: Any, is_chunked: bool, is_stream: bool
) -> None:
    with coded("gzip", is_stream=is_stream) as model:
        model.is_chunked = is_chunked
        with llmcache.http_client(library=library) as client:
            (_, live), (headers, stored) = (
                posted(client, model.root, is_stream=is_stream) for _ in range(2)
            )
    assert len(model.asked) == 1
    assert stored == live
    assert "hit" in headers["cache-status"]
    assert not {"content-encoding", "transfer-encoding"} & headers.keys()
    assert headers.get("content-length") == (None if is_stream else str(len(stored)))


def tls(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server on this machine, and for the clients that trust it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = directory / "certificate.pem"
    file.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


@pytest.mark.parametrize("is_safe", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_proxy_is_asked_by_what_is_wrapped_and_counts_in_no_key(
    library: Any, is_safe: bool, is_async: bool, tmp_path: Path
) -> None:
    serves, trusts = tls(tmp_path)
    model = Served([whole()], chunked=False, content_type="application/json")
    if is_safe:
        model.over_tls(serves)
    with model, Proxy() as proxy:
        address = proxy.root.replace("://", "://user:secret@")
        cls: Any = library.AsyncClient if is_async else library.Client
        proxied, direct = cls(proxy=address, verify=trusts), cls(verify=trusts)
        with llmcache.capture() as calls:
            for client in (proxied, proxied, direct):
                assert _post(llmcache.wrap(client), model.root, is_async) == whole()
    assert [str(call.outcome) for call in calls] == ["miss", "hit", "hit"]
    [line] = proxy.lines
    assert line.startswith("CONNECT 127.0.0.1" if is_safe else f"POST {model.root}/v1")
    assert len(model.asked) == 1


def _post(client: Any, root: str, is_async: bool) -> bytes:
    url = f"{root}/v1/chat/completions"
    if not is_async:
        return bytes(client.post(url, json=QUESTION).content)

    async def post() -> bytes:
        return bytes((await client.post(url, json=QUESTION)).content)

    return asyncio.run(post())


TIMED_OUT = {"httpx": groq.APITimeoutError, "httpx2": openai.APITimeoutError}


@pytest.mark.parametrize("library", SDKS)
def test_a_provider_that_says_nothing_is_the_sdks_own_timeout(library: str, is_async: bool) -> None:
    sdk = SDKS[library]
    with Served([whole()], chunked=False, content_type="application/json") as model:
        model.silent = 0
        client = sdk.make(model.root, is_async).with_options(timeout=0.3, max_retries=1)
        wrapped = llmcache.wrap(client)
        with llmcache.capture() as calls, pytest.raises(TIMED_OUT[library]):
            sdk.answers(wrapped, ["Which city?"], is_async=is_async)
        assert len(model.asked) == 2
        assert [(str(call.outcome), call.stored) for call in calls] == [("miss", False)] * 2
        assert not CacheEntry.objects.exists()
        model.silent = None
        [answer] = sdk.answers(wrapped, ["Which city?"], is_async=is_async)
        assert answer["choices"][0]["finish_reason"] == "stop"
    assert CacheEntry.objects.count() == 1


@pytest.mark.parametrize("library", SDKS)
def test_a_stream_that_falls_silent_ends_as_it_does_without(library: str, is_async: bool) -> None:
    sdk = SDKS[library]
    with Served(streamed(), content_type="text/event-stream") as model:
        model.silent = 2
        client = sdk.make(model.root, is_async).with_options(timeout=0.3, max_retries=0)
        asked = lambda client: told(  # noqa: E731
            lambda: sdk.streams(client, ["Which city?"], is_async=is_async)
        )
        error = asked(client)
        assert "Timeout" in error.__name__
        assert asked(llmcache.wrap(client)) is error
    assert not CacheEntry.objects.exists()
