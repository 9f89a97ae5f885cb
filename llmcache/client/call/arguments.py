"""The arguments of a call: which are llmcache's, which count in the key, and what is sent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Set
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from instructor.cache import BaseCache
from instructor.v2.core.multimodal import PDF, Audio, Image

from llmcache.exceptions import InvalidArgument
from llmcache.keys.forms import FORMS, copied
from llmcache.keys.request import SAMPLE, canonical_part
from llmcache.policy import read_exclude
from llmcache.providers.arguments import NOT_SENT, UNHEARD, is_not_given

# What cannot change the answer, and so does not count in the key: transport and hooks, too.
# Everything else that a call names counts, whether or not it is known here.
DENIED: Final = UNHEARD | {
    *("extra_headers", "headers", "hooks", "http_headers", "http_client"),
    *("max_retries", "num_retries", "request_timeout", "timeout"),
}
# Parts of the key of their own.
OWN_PARTS: Final = frozenset({"context", "messages", "model", "strict"})
NOT_PARAMETERS: Final = DENIED | OWN_PARTS
NEVER_EXCLUDED: Final = OWN_PARTS | {"response_model", "stream"}

# The arguments of llmcache, and the parameter of the policy that each is.
CACHE_ARGUMENTS: Final = {
    "cache_mode": "mode",
    "cache_ttl": "ttl",
    "cache_tags": "tags",
    "cache_namespace": "namespace",
    "cache_stale_while_revalidate": "stale_while_revalidate",
    "cache_stale_if_error": "stale_if_error",
    SAMPLE: "sample",
}
OURS: Final = frozenset(CACHE_ARGUMENTS)
# The providers' own, although they look like one of ours.
PROVIDERS_OWN: Final = frozenset({"cache_control", "cached_content", "cache_prompt", "cache_salt"})
# From here on, a name is one of ours mistyped (the ratio of `difflib`).
LIKENESS: Final = 0.8


def taken_wishes(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of llmcache, taken out of `arguments`."""
    wishes = {
        name: arguments.pop(argument)
        for argument, name in CACHE_ARGUMENTS.items()
        if argument in arguments
    }
    # None is no expiry for a time to live, and for the others: not given.
    return {name: wish for name, wish in wishes.items() if wish is not None or name == "ttl"}


def refuse_mistyped(
    arguments: dict[str, Any], names: Iterable[str], *, is_litellms: bool = False
) -> None:
    """Raise `InvalidArgument` for `names` that can only be meant for a cache, and not reach ours.

    LiteLLM has an argument ``cache`` of its own.
    """
    for name in names:
        if meant := _meant(name):
            raise InvalidArgument(
                f"There is no argument {name}. Did you mean {meant}? What the provider is to get "
                f"can be passed as extra_body={{{name!r}: ...}}."
            )
        if name != "cache":
            continue
        if arguments[name] is None:  # (for instructor, as if it was not given)
            del arguments[name]
        elif not is_litellms or isinstance(arguments[name], BaseCache):
            raise InvalidArgument(
                "cache is an argument of instructor's own cache; this client has one already, "
                'which takes cache_mode, cache_ttl, ... Say cache_mode="no-store" for none.'
            )


def looks_like_ours(name: str) -> bool:
    return name[:4].lower() == "cach"


@lru_cache(maxsize=1000)
def _meant(name: str) -> str:
    """The argument of llmcache that was mistyped as `name`; empty for none."""
    if not looks_like_ours(name) or name in PROVIDERS_OWN or name in CACHE_ARGUMENTS:
        return ""
    return next(iter(get_close_matches(name.lower(), CACHE_ARGUMENTS, n=1, cutoff=LIKENESS)), "")


def left_out(exclude: object) -> frozenset[str]:
    """The names in ``exclude=...`` of a client. Raises `InvalidArgument`."""
    names = read_exclude(exclude)
    for name in sorted(names):
        if name in NEVER_EXCLUDED or name.startswith("cach"):
            raise InvalidArgument(
                f"exclude cannot name {name}: without it, questions with other answers would be "
                "one. It takes arguments that cannot change the answer, such as metadata."
            )
    return names


def parameters(
    arguments: Mapping[str, Any], names: Iterable[str], unheard: Set[str], sample: int
) -> dict[str, Any]:
    """What counts in the key besides the parts that stand for themselves: what is under `names`.

    `unheard` does not count in the body of the request either.
    """
    counted = {
        name: value
        for name in names
        if type(value := arguments[name]).__name__ not in NOT_SENT or not is_not_given(value)
    }
    body = counted.get("extra_body")
    if isinstance(body, dict) and not unheard.isdisjoint(body):
        counted["extra_body"] = {k: v for k, v in body.items() if k not in unheard}
        if not counted["extra_body"]:
            del counted["extra_body"]
    if sample:
        counted[SAMPLE] = sample
    return counted


def sent(
    arguments: Mapping[str, Any], kept: Set[str], copy_of: Callable[[Any], Any] = copy.deepcopy
) -> tuple[dict[str, Any], set[str]]:
    """Copies to be sent of all `arguments` but those `kept`; and the names of those without one."""
    copies, uncopied = dict(arguments), set()
    for name, value in arguments.items():
        if name not in kept:
            try:
                copies[name] = copied(value, copy_of)
            except Exception:  # noqa: BLE001 - then it is sent as it is
                uncopied.add(name)
    return copies, uncopied


def _media_form(media: Any) -> bytes:
    """An image, audio or PDF of instructor: its content, and what is sent of where it is from.

    That is its address, if it has one; of a PDF the name of the file too.
    """
    source = media.source
    sent = source if media.data is None or "://" in str(source) else None
    if isinstance(media, PDF):
        sent = str(source)
    kind = type(media).__name__
    return canonical_part("messages", [f"instructor.{kind}", media.media_type, media.data, sent])


for _media in (Image, Audio, PDF):
    FORMS[_media] = _media_form
