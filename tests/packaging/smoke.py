"""A small site that uses llmcache as it is installed, in an environment that has nothing else.

Run by `test_distributions` there, with a provider's address in the environment.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    SECRET_KEY="secret",
    ALLOWED_HOSTS=["testserver"],
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "llmcache",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    ROOT_URLCONF=__name__,
    STATIC_URL="static/",
    STATIC_ROOT="static",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
    LLMCACHE={"CACHE": None},
)
django.setup()

from django.apps import apps  # noqa: E402 - after the settings
from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path, reverse  # noqa: E402
from pydantic import BaseModel  # noqa: E402

import llmcache  # noqa: E402
import llmcache.admin  # noqa: E402
from llmcache.models import CacheEntry  # noqa: E402

urlpatterns = [path("admin/", admin.site.urls)]


class Ticket(BaseModel):
    title: str


@llmcache.cached
def double(number: int) -> int:
    return 2 * number


def the_package() -> None:
    assert Path(llmcache.__file__).is_relative_to(Path(sys.prefix))
    assert distribution("django-llmcache").version == llmcache.__version__
    assert files("llmcache").joinpath("py.typed").is_file()


def the_commands() -> None:
    call_command("migrate", verbosity=0)
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
    call_command("check", fail_level="WARNING")
    call_command("collectstatic", interactive=False, verbosity=0)
    assert Path("static/llmcache/admin.css").is_file()
    call_command("llmcache_expire", verbosity=0)


def the_calls() -> None:
    client = llmcache.from_provider("openai/gpt-4.1-mini")
    messages: list[Any] = [{"role": "user", "content": "The printer is on fire."}]
    with llmcache.capture() as calls:
        answers = [client.create(response_model=Ticket, messages=messages) for _ in range(2)]
        assert [double(21), double(21)] == [42, 42]
    assert answers[0] == answers[1]
    assert [call.outcome for call in calls] == ["miss", "hit"] * 2


def the_pages() -> None:
    browser = Client()
    browser.force_login(User.objects.create_superuser("jo"))
    pages = [
        reverse(f"admin:llmcache_{name}_changelist")
        for name in apps.all_models["llmcache"]
        if admin.site.is_registered(apps.get_model("llmcache", name))
    ]
    [entry, _] = CacheEntry.objects.all()
    pages.append(reverse("admin:llmcache_cacheentry_change", args=[entry.pk]))
    for page in pages:
        assert browser.get(page).status_code == 200, page


for part in (the_package, the_commands, the_calls, the_pages):
    part()
