"""Runs the stand-in for a model in the foreground."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from project.interrupts import terminable
from project.standin import StandIn


class Command(BaseCommand):
    help = "Run an offline stand-in for a language model: and its protocols."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
        parser.add_argument("--port", type=int, default=8001, help="where to listen; 0: any")
        parser.add_argument("--latency", type=float, default=0.8, help="seconds before an answer")

    def handle(self, *, port: int, latency: float, **options: Any) -> None:
        try:
            standin = StandIn(port, latency)
        except OSError as error:
            raise CommandError(f"Cannot listen on port {port}: {error.strerror}.") from error
        with terminable(), standin:
            self.stdout.write(f"OpenAI protocol:    {standin.url}")
            self.stdout.write(f"Anthropic protocol: {standin.root}")
            standin.wait()
