"""``manage.py llmcache_invalidate``: remove answers before they expire."""

from __future__ import annotations

import getpass
import re
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from llmcache.management.base import LLMCacheCommand, counted
from llmcache.outcomes import Tier
from llmcache.removal.criteria import InvalidationCriteria, read_criteria
from llmcache.removal.invalidate import Invalidated, count_entries, invalidate

AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Command(LLMCacheCommand):
    help = (
        "Removes entries from all tiers. Several criteria narrow; several keys or tags are "
        "alternatives. Ends with 1 when a tier is still pending."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_argument_group("which entries")
        which.add_argument("--key", action="append", metavar="KEY", help="64 hex digits. Repeat.")
        which.add_argument("--tag", action="append", metavar="TAG", help="A label. Repeat.")
        which.add_argument("--namespace")
        which.add_argument("--model", help="The name that was sent to the provider.")
        which.add_argument("--response-model", metavar="PATH", help="The dotted path of the class.")
        which.add_argument(
            "--before",
            metavar="WHEN",
            help="Stored before: a moment (2026-01-31, 2026-01-31T12:00) or an age (7d, 12h).",
        )
        which.add_argument("--everything", action="store_true", help="All, of all namespaces.")
        parser.add_argument("--by", help="For the audit trail (default: the user's login name).")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        self.add_output(parser, bar=True)

    def handle(self, *args: Any, **options: Any) -> None:
        by = _login_name() if options["by"] is None else options["by"]
        criteria: InvalidationCriteria = {
            "keys": options["key"],
            "tags": options["tag"],
            "namespace": options["namespace"],
            "model": options["model"],
            "response_model": options["response_model"],
            "before": None if options["before"] is None else _read_when(options["before"]),
            "everything": options["everything"],
        }
        if not options["yes"]:
            _ask(count_entries(read_criteria(**criteria)))
        with self.progress(options, "Removing") as progress:
            result = invalidate(**criteria, by=by, progress=progress)
        self.tell(options, asdict(result), [f"{_entries(result.entries)} removed."])
        # Copies in other processes go by themselves, and soon: that is no failure.
        if {*result.pending} - {Tier.LOCAL}:
            raise CommandError(_pending(result))


def _read_when(text: str) -> datetime | timedelta:
    if age := AGE.fullmatch(text):
        try:
            return timedelta(**{UNITS[age[2]]: float(age[1])})
        except OverflowError:
            raise CommandError(f"--before {text} is before the first of all days.") from None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"--before takes a moment (2026-01-31, 2026-01-31T12:00+02:00) or an age (90s, 30m, "
            f"12h, 7d, 4w); not {text!r}."
        ) from None


def _ask(entries: int) -> None:
    """Have the user agree. Raises `CommandError` when that is not so."""
    try:
        answer = input(f"This removes {_entries(entries)} for good. Go on? [y/N] ")
    except EOFError:
        raise CommandError("There is nobody to ask. Give --yes to go on without.") from None
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("Nothing was removed.")


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may know no names
        return ""


def _entries(number: int) -> str:
    return counted(number, "entry", "entries")


def _pending(result: Invalidated) -> str:
    if Tier.DURABLE in result.pending:
        return "The database has not removed all of them (see the log). Run it again."
    return (
        "The hot tier (fast copies) could not be reached: its copies may be served until "
        f"{result.pending_until:%Y-%m-%d %H:%M:%S %Z} at the latest. Their removal is noted, and "
        "done once it is back."
    )
