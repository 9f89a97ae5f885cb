"""The modes of instructor by their names, for those who may not import it."""

from __future__ import annotations

from instructor import Mode

from llmcache.exceptions import InvalidArgument


def mode_named(name: str) -> Mode:
    """The mode of instructor with this name, as in ``"TOOLS"``. Raises `InvalidArgument`."""
    try:
        return Mode[name.upper()]
    except KeyError:
        names = ", ".join(Mode.__members__)
        raise InvalidArgument(f"{name!r} is no mode of instructor. There are: {names}.") from None
