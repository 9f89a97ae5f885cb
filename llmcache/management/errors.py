"""How a command ends when the database does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import Error
from django.utils.connection import ConnectionDoesNotExist

from llmcache.discretion import without_content
from llmcache.resilience.failsafe import how_to_migrate


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
            f"The database failed ({without_content(error)}). `manage.py llmcache_status` "
            f"says how it is; missing tables are made by `{how_to_migrate()}`."
        ) from error
