"""How trouble is written down: prompts and answers leave the store by its doors only (law F).

And once a minute for each kind: a tier that is down would fill the log, one line a call.
"""

from __future__ import annotations

import logging
import re
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from llmcache.exceptions import LLMCacheError

PACKAGE: Final = Path(__file__).parent
LIBRARIES: Final = frozenset(
    {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
)
# Where exceptions keep the number or the word that the system, the database or the provider has
# for them.
CODES: Final = ("sqlstate", "sqlite_errorname", "errno", "status_code")
CODE: Final = re.compile(r"[0-9A-Z_]{1,32}")
# What differs between two troubles of one kind: the key of the entry, and the place (see below).
VARYING: Final = re.compile(r"\b[0-9a-f]{64}\b| in \S+ \(\w+\.py:\d+\)")
MINUTE: Final = 60.0
# So many kinds are remembered.
MOST_KINDS: Final = 1_000


def without_content(error: BaseException) -> str:
    """`error` for logs, rows and reasons: its type, its code, and where it was raised.

    Never its text, unless that is llmcache's own: Pydantic's has the answer in it, a database's the
    values of a row, and a redactor or a validator may say what it was given. Where: the innermost
    place that is not a library's.
    """
    places = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    is_ours = isinstance(error, LLMCacheError) and error.is_without_content
    if isinstance(error, ImproperlyConfigured) and places:  # (anybody may raise it)
        is_ours = PACKAGE in Path(places[-1][0].co_filename).parents
    if is_ours:
        return str(error)
    said = " ".join([type(error).__name__, *_codes(error)])
    for code, line in reversed(places):
        path = Path(code.co_filename)
        is_a_librarys = any(library in path.parents for library in LIBRARIES)
        if path.is_absolute() and (PACKAGE in path.parents or not is_a_librarys):
            return f"{said} in {code.co_qualname} ({path.name}:{line})"
    return said


def _codes(error: BaseException) -> Iterator[str]:
    for each in (error, error.__cause__):
        for name in CODES:
            with suppress(Exception):  # (it may be anybody's property)
                code = str(getattr(each, name, None) or "")
                if CODE.fullmatch(code):
                    yield code
                    return


class OnceAMinute(logging.Filter):
    """Lets one warning of each kind a minute through; the next tells how many it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = time.monotonic
        #: For each kind, when it was last told, and how many were not told since.
        self.told: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        # (without a lock, which a fork could keep: threads that meet may tell one twice)
        kind, now = VARYING.sub("", record.getMessage()), self.clock()
        last, untold = self.told.pop(kind, (None, 0))
        if last is not None and now - last < MINUTE:
            self.told[kind] = last, untold + 1
            return False
        if len(self.told) >= MOST_KINDS:
            self.told.clear()
        self.told[kind] = now, 0
        if last is not None and untold:
            minutes = round((now - last) / MINUTE)
            span = "minute" if minutes == 1 else f"{minutes} minutes"
            record.msg, record.args = (
                f"{record.getMessage()} ({untold} more in the last {span})",
                (),
            )
        return True


once_a_minute: Final = OnceAMinute()
logging.getLogger("llmcache").addFilter(once_a_minute)
