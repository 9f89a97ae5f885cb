"""Chromium, and a site for it to visit.

Playwright's synchronous calls run an event loop on the thread of the test, where Django refuses to
use the database. So a test makes its entries first, then opens the browser in a `with`, and looks
into the database after it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test import Client
from django.test.testcases import LiveServerThread
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

Visit = Callable[..., AbstractContextManager[Page]]


@pytest.fixture
def site(settings: Any, transactional_db: None) -> Iterator[str]:
    """The address of a running site, whose pages may have nothing inline."""
    settings.MIDDLEWARE = ["project.middleware.ContentSecurityPolicy", *settings.MIDDLEWARE]
    # Of its own for each test: a server that is shared has loaded its middleware already.
    server = LiveServerThread("127.0.0.1", StaticFilesHandler)
    server.daemon = True
    server.start()
    server.is_ready.wait()
    if server.error:
        raise server.error
    yield f"http://{server.host}:{server.port}"
    server.terminate()


@pytest.fixture
def visit(site: str, admin_client: Client, tmp_path: Path) -> Visit:
    """Opens a page of the site, logged in; on leaving, whatever went wrong there fails the test."""
    if not CHROMIUM.exists():
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{CHROMIUM} is missing: `make services` installs it")
    cookie = admin_client.cookies[django_settings.SESSION_COOKIE_NAME]

    @contextmanager
    def visit(address: str, *, color_scheme: Any = "light", width: int = 1280) -> Iterator[Page]:
        trouble: list[str] = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            context = browser.new_context(
                base_url=site, color_scheme=color_scheme, viewport={"width": width, "height": 900}
            )
            context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": site}])
            page = context.new_page()
            _watch(page, trouble)
            page.goto(address)
            yield page
            page.screenshot(path=tmp_path / "page.png", full_page=True)
            browser.close()
        assert not trouble

    return visit


def _watch(page: Page, trouble: list[str]) -> None:
    """Note dialogs, errors of scripts, and what the console complains about (the policy too)."""

    def dismiss(dialog: Any) -> None:
        trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
