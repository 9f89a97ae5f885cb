"""Programs of this machine, and who may run them."""

from __future__ import annotations

import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

# Debian keeps these off the PATH, PostgreSQL's in a directory for each version.
EXTRA_DIRECTORIES = ["/usr/sbin", "/usr/local/sbin"]


class ServerError(RuntimeError):
    """A server did not do what it was told. The message ends with its log."""


def find_program(name: str) -> str | None:
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda directory: float(directory.parent.name),
        reverse=True,
    )
    places = [*map(str, versions), os.environ.get("PATH", os.defpath), *EXTRA_DIRECTORIES]
    return shutil.which(name, path=os.pathsep.join(places))


def program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise ServerError(f"{name} is not installed; `make services` installs it")
    return found


def is_root() -> bool:
    return os.geteuid() == 0


def user_exists(name: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def primary_group(name: str) -> int:
    return pwd.getpwnam(name).pw_gid


def is_alive(process: psutil.Process) -> bool:
    """A zombie has ended: whoever inherited it may never look."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
