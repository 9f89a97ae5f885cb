"""What the commands share: how they fail, how they tell what they found, and their progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error
from django.utils.connection import ConnectionDoesNotExist

from llmcache.discretion import without_content
from llmcache.exceptions import InvalidArgument
from llmcache.resilience.failsafe import how_to_migrate

Progress = Callable[[int, int], object]


class LLMCacheCommand(BaseCommand):
    """A command whose failures say what to do, and whose findings people or programs read.

    A traceback tells nobody that tables are missing; ``--traceback`` still shows it.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except InvalidArgument as error:
            raise CommandError(str(error)) from error
        except (ImproperlyConfigured, ConnectionDoesNotExist) as error:
            raise CommandError(f"{error} `manage.py check` says more.") from error
        except (Error, TimeoutError) as error:
            raise CommandError(
                f"The database failed ({without_content(error)}). `manage.py llmcache_status` "
                f"says how it is; missing tables are made by `{how_to_migrate()}`."
            ) from error

    def add_output(self, parser: CommandParser, *, bar: bool = False) -> None:
        """The options of `tell`, and of `progress` where there is a `bar`."""
        parser.add_argument(
            "--format", choices=("text", "json"), default="text", help="Default: %(default)s."
        )
        if bar:
            parser.add_argument(
                "--no-progress", action="store_true", help="Show no bar, on a terminal either."
            )

    def tell(self, options: dict[str, Any], facts: Any, lines: Iterable[str]) -> None:
        """Write `facts` for programs, or `lines` for people."""
        if options["format"] == "json":
            self.stdout.write(json.dumps(facts, cls=DjangoJSONEncoder, indent=2))
        else:
            self.stdout.write("\n".join(lines))

    @contextmanager
    def progress(self, options: dict[str, Any], what: str) -> Iterator[Progress | None]:
        """What shows on a terminal how many are done; None elsewhere, and without rich."""
        is_shown = self.stderr.isatty() and not options["no_progress"]
        try:
            from rich.console import Console  # optional
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError:
            is_shown = False
        if not is_shown:
            yield None
            return
        columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
