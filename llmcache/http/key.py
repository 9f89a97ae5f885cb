"""What of a request counts in its key: address, headers that choose the answer, body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from llmcache.conf import settings
from llmcache.flow.replay import HTTP
from llmcache.http.door import Door, library_of
from llmcache.keys.request import (
    SAMPLE,
    CanonicalRequest,
    canonical_context,
    canonical_parameters,
    canonical_part,
    common_parts,
)
from llmcache.outcomes import Call
from llmcache.providers.addresses import address_in_words
from llmcache.providers.arguments import UNHEARD
from llmcache.providers.dialects import Dialect
from llmcache.providers.headers import counted_on_client, counts_on_client, in_words

# So many addresses are remembered in words, and so many parts that requests have in common.
MOST_KNOWN: Final = 1000
# The parts of the key that such a request does not have.
NO_SCHEMA: Final = canonical_part("schema", None)
NO_CONTEXT: Final = canonical_context(None)
NOT_STRICT: Final = canonical_part("strict", None)


def read_body(sent: Any) -> dict[str, Any]:
    """The JSON object that is sent; empty where it is none, or has a name twice."""
    if isinstance(sent.stream, library_of(sent).ByteStream):
        sent.read()  # (which is at hand: the client has only not looked, after a redirect)
    try:
        body = json.loads(
            sent.content,
            object_pairs_hook=_each_once,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except (ValueError, RecursionError):
        return {}
    except Exception as error:
        # (`RequestNotRead` of httpx and of httpx2: a body that is made as it is sent)
        if type(error).__name__ != "RequestNotRead":
            raise
        return {}
    return body if isinstance(body, dict) else {}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("no number of JSON, or one of many that would read the same")
    return number


def endpoint_of(sent: Any, door: Door) -> str:
    """The address, and the headers that choose the answer, as they may be kept and shown."""
    # (servers on sockets of one machine share an address)
    socket = getattr(getattr(door.inner, "_pool", None), "_uds", None)
    place = f" uds={socket}" if socket else ""
    return _address(str(sent.url)) + place + in_words(_headers(sent, door))


_address: Final = lru_cache(maxsize=MOST_KNOWN)(address_in_words)


def _headers(sent: Any, door: Door) -> dict[str, str]:
    host, encoding = sent.url.netloc, sent.headers.encoding
    # (which of them a client gives to each request, nobody can tell here: all count like those)
    pairs = [
        (name, value.decode(encoding))
        for raw_name, value in sent.headers.raw
        if (name := _counted_name(raw_name, door.exclude, settings.key_headers))
        and (name, value) != ("host", host)
    ]
    return counted_on_client([pairs])


@lru_cache(maxsize=MOST_KNOWN)
def _counted_name(raw_name: bytes, exclude: frozenset[str], named: frozenset[str]) -> str:
    """The name of a header that counts; empty for one that does not, as for nearly all."""
    name = raw_name.decode("latin-1").lower()
    return name if name not in exclude and (name in named or counts_on_client(name)) else ""


def parts_of(
    dialect: Dialect | None, body: Mapping[str, Any], door: Door, sample: int
) -> tuple[Any, dict[str, Any]]:
    """What of the body is the conversation, and the parameters."""
    names = dialect.conversation if dialect else ()
    conversation = {name: body[name] for name in names if name in body}
    not_counted = {*names, *UNHEARD, *door.exclude}
    if isinstance(body.get("model"), str):  # (which is a part of its own)
        not_counted.add("model")
    parameters = {name: value for name, value in body.items() if name not in not_counted}
    if sample:
        parameters[SAMPLE] = sample
    # (a list of messages, where it stands alone, as the other ways in have it)
    alone = conversation.keys() == {"messages"}
    return conversation["messages"] if alone else conversation, parameters


def canonical(
    call: Call, endpoint: str, dialect: Dialect | None, parts: tuple[Any, dict[str, Any]]
) -> CanonicalRequest:
    """The request that has these parts. Raises `UncacheableRequest` where they have no form."""
    conversation, parameters = parts
    schemas = dialect.schemas & parameters.keys() if dialect else frozenset()
    # In a schema, the order of the fields is the one in which the model fills them in.
    ordered = [canonical_context({name: parameters[name]}) for name in sorted(schemas)]
    common = _common(call.namespace, call.provider, endpoint, call.model, HTTP, NO_SCHEMA)
    return common.request(
        canonical_part("messages", conversation),
        canonical_parameters(parameters) + b"".join(ordered),
        NO_CONTEXT,
        NOT_STRICT,
    )


_common: Final = lru_cache(maxsize=MOST_KNOWN)(common_parts)
