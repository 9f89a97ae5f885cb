"""What the settings read from the environment, and from the files that stand in for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key


def flag(name: str, *, default: bool) -> bool:
    """A yes or no from the environment."""
    return os.environ.get(name, str(default)).strip().lower() in ("1", "true", "yes", "on")


def listed(name: str) -> list[str]:
    """Several values with commas between them."""
    return [value.strip() for value in os.environ.get(name, "").split(",") if value.strip()]


def secret_key(*, debug: bool, kept_in: Path) -> str:
    """The key from ``DJANGO_SECRET_KEY``; for development, one that is made up once and kept.

    Raises:
        ImproperlyConfigured: outside development there is no key but one's own.
    """
    if key := os.environ.get("DJANGO_SECRET_KEY"):
        return key
    if not debug:
        raise ImproperlyConfigured(
            "DJANGO_SECRET_KEY must be set when DJANGO_DEBUG is off. Make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(50))"'
        )
    return _kept(kept_in / "secret_key")


def _kept(file: Path) -> str:
    if not file.exists():
        # Linking a finished file: the server and a worker that start together agree on one key.
        with NamedTemporaryFile("w", dir=file.parent, prefix=".secret_key-") as draft:
            draft.write(get_random_secret_key())
            draft.flush()
            with suppress(FileExistsError):
                file.hardlink_to(draft.name)
    return file.read_text()
