"""Which database has the rows, and whether the caller is in a transaction of it."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

from llmcache.conf import settings

# A coroutine waits at most so long for the thread that has its transaction, which may be busy.
HOP_SECONDS: Final = 0.2


def database_alias() -> str:
    """The alias of the database that holds the rows."""
    return settings.database or router.db_for_write(apps.get_model("llmcache", "CacheEntry"))


def rows(model: str) -> Any:
    """All rows of the model of that name, in the database that holds them."""
    # By name at the first use: a client may be made before the app registry is ready.
    return apps.get_model("llmcache", model).objects.using(database_alias())


def database_name() -> object:
    """What the database that holds the rows is called on its server, or its file."""
    return connections[database_alias()].settings_dict["NAME"]


def caller_is_the_writer() -> bool:
    """Whether the caller is in a transaction of a database that allows one writer (SQLite).

    Waiting for a write of ours would then be waiting for ourselves.
    """
    connection = connections[database_alias()]
    return (
        connection.vendor == "sqlite"
        and not _is_free(connection)
        and not in_test_transaction(connection)
        and not is_worker()
        and not is_in_memory(connection)
    )


async def acaller_is_the_writer() -> bool:
    """`caller_is_the_writer` for a coroutine: a transaction around it is of the thread behind it.

    That is the thread that called `async_to_sync`, or on which `sync_to_async` runs. Only SQLite
    takes the way there. False when that thread is busy, or gone, or there is no such database.
    """
    with suppress(Exception):
        if connections[database_alias()].vendor == "sqlite":
            async with asyncio.timeout(HOP_SECONDS):
                return await sync_to_async(caller_is_the_writer)()
    return False


def _is_free(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and (
        connection.connection is None or connection.get_autocommit()
    )


def is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    return connection.vendor == "sqlite" and connection.is_in_memory_db()  # type: ignore[attr-defined]


def in_test_transaction(connection: BaseDatabaseWrapper) -> bool:
    blocks = connection.atomic_blocks
    return bool(blocks) and any(getattr(block, "_from_testcase", False) for block in blocks)


def is_testing() -> bool:
    """Whether `setup_test_environment` has been called, as every test runner of Django does."""
    test_utils = sys.modules.get("django.test.utils")
    state = getattr(test_utils, "_TestState", None)
    return hasattr(state, "saved_data")


def will_be_undone() -> bool:
    """Whether this is in a test's transaction, which is rolled back with all that it stored."""
    return is_testing() and in_test_transaction(connections[database_alias()])


def stays_here() -> bool:
    """Whether work runs on the caller's connection: in a test's transaction, or in memory."""
    connection = connections[database_alias()]
    return in_test_transaction(connection) or is_in_memory(connection)


def is_worker() -> bool:
    return getattr(this_thread, "is_worker", False)


this_thread = threading.local()
