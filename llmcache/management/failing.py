"""How a command ends when the database does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import Error
from django.utils.connection import ConnectionDoesNotExist


@contextmanager
def failing_cleanly() -> Iterator[None]:
    """Make a `CommandError` of what the database raises, or a wrong setting.

    A traceback tells nobody that tables are missing; ``--traceback`` still shows it.
    """
    try:
        yield
    except (ImproperlyConfigured, ConnectionDoesNotExist) as error:
        raise CommandError(f"{error} `manage.py check` says more.") from error
    except (Error, TimeoutError) as error:
        raise CommandError(
            f"The database failed ({type(error).__name__}: {error}). `manage.py llmcache_status` "
            "says how it is; missing tables are made by `manage.py migrate`."
        ) from error
