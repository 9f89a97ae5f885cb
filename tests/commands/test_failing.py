"""How the commands end when the database fails, or a setting is wrong: not in a traceback."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.support.backends import without_table

pytestmark = pytest.mark.django_db(transaction=True)

COMMANDS = pytest.mark.parametrize(
    "command",
    [
        ("llmcache_stats",),
        ("llmcache_expire",),
        ("llmcache_expire", "--dry-run"),
        ("llmcache_roll_up",),
        ("llmcache_explain", "0" * 64),
        ("llmcache_invalidate", "--everything"),
    ],
    ids=" ".join,
)


def run(command: tuple[str, ...]) -> None:
    call_command(*command, stdout=StringIO())


@COMMANDS
def test_tables_that_are_missing(command: tuple[str, ...]) -> None:
    with without_table(), pytest.raises(CommandError, match=r"SQLITE_ERROR.*manage\.py migrate"):
        run(command)


@COMMANDS
@pytest.mark.parametrize("wrong", [{"DATABASE": "nope"}, {"DATABASE": 7}, []], ids=str)
def test_settings_that_are_wrong(settings: Any, command: tuple[str, ...], wrong: Any) -> None:
    settings.LLMCACHE = wrong
    with pytest.raises(CommandError, match=r"manage\.py check"):
        run(command)
