"""Dialects: what providers say, read from objects of their SDKs or from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def read(holder: Any, name: str, default: Any = None) -> Any:
    """What `holder`, an object or a mapping, has under this name."""
    if isinstance(holder, Mapping):
        return holder.get(name, default)
    return getattr(holder, name, default)
