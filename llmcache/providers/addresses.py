"""Addresses in words, as they may be kept and shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from llmcache.providers.headers import is_credential, short_digest, without_credentials

API_VERSIONS: Final = {"api-version", "api_version"}
USER_IN_URL: Final = re.compile(r"(?:(?<=:)|^)//[^/?#]*@")
URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/]", re.IGNORECASE)
HIDDEN: Final = "‹hidden›"


def address_in_words(value: Any) -> str:
    """An address, or what else tells it: no user in a URL, no credentials and no values of a query.

    But for the version of an API (Azure), the values of a query count by their digest. Empty for
    what is merely there: None, False, an empty text.
    """
    if not value:
        return ""
    if isinstance(value, Mapping):
        shown = {
            key: item if key in API_VERSIONS else short_digest(item)
            for key, item in sorted(without_credentials(value).items())
        }
        return str(shown) if shown else ""
    address, _, query = str(value).partition("?")
    # (SDKs end a base with a slash)
    pairs = parse_qs(query.rstrip("/"), keep_blank_values=True, errors="surrogateescape")
    told = address_in_words(pairs)
    return USER_IN_URL.sub("//", address) + (f"?{told}" if told else "")


def without_secrets(value: Any) -> Any:
    """Parameters as they may be kept and shown: nothing that says with which right they are sent.

    Of the servers that a model may ask, providers are told addresses and tokens among them.
    """
    if isinstance(value, Mapping):
        return {
            name: HIDDEN
            if isinstance(item, str) and is_credential(str(name))
            else without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return address_in_words(value) if isinstance(value, str) and URL.match(value) else value
