"""Runs everything that there is to see, in the foreground."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from project.interrupts import terminable
from project.standin import StandIn

HOST = "127.0.0.1"
ADMINISTRATOR = "admin"


class Command(BaseCommand):
    help = "Prepare the databases, then run the stand-in for a model and the site until Ctrl-C."
    # The checks import the page's client, which must not be made before the stand-in has a port.
    # The server runs them later.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
        parser.add_argument("--port", type=int, default=0, help="of the site; 0: a free one")
        parser.add_argument(
            "--latency", type=float, default=0.8, help="of the stand-in, in seconds"
        )

    def handle(self, *, port: int, latency: float, **options: Any) -> None:
        with terminable(), _model(latency) as model:
            _prepare_databases()
            password = _new_password()
            port = port or free_port(8000)
            self._announce(f"http://{HOST}:{port}/", model, password)
            _serve(port)

    def _announce(self, site: str, model: str, password: str) -> None:
        heading = self.style.MIGRATE_HEADING
        for title, value in (
            ("The page", site),
            ("The same, asynchronous", f"{site}async/"),
            ("The admin", f"{site}admin/"),
            ("  user", ADMINISTRATOR),
            ("  password", f"{password} (a new one at each start)"),
            ("The model", model),
            ("To stop", "Ctrl-C"),
        ):
            self.stdout.write(f"{heading(f'{title:<24}')}{value}")
        self.stdout.flush()


@contextmanager
def _model(latency: float) -> Iterator[str]:
    """What answers: the real provider where there is a key for it, else a stand-in of our own."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        yield os.environ.get("OPENAI_BASE_URL") or "the real provider"
        return
    # The endpoint is part of every key: on the same port, yesterday's answers are found again.
    with StandIn(free_port(8001), latency) as standin:
        os.environ["LLMCACHE_STANDIN_URL"] = standin.url
        yield f"{standin.url} (a stand-in, no language model)"


def _prepare_databases() -> None:
    call_command("migrate", verbosity=0)
    if alias := settings.LLMCACHE.get("DATABASE"):
        call_command("migrate", "llmcache", database=alias, verbosity=0)


def _new_password() -> str:
    password = secrets.token_urlsafe(9)
    user, _ = get_user_model().objects.get_or_create(username=ADMINISTRATOR)
    user.is_active = user.is_staff = user.is_superuser = True
    user.set_password(password)
    user.save()
    return password


def _serve(port: int) -> None:
    os.environ.setdefault("DJANGO_RUNSERVER_HIDE_WARNING", "true")
    call_command("runserver", f"{HOST}:{port}", use_reloader=False)


def free_port(preferred: int) -> int:
    """``preferred`` where nobody listens on it, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("There is no free port.")
