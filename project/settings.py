"""Settings of the example site. Everything that differs between places is in the environment.

``DATABASE_URL``, ``REDIS_URL``, ``CELERY_BROKER_URL``, ``DJANGO_SECRET_KEY``, ``DJANGO_DEBUG``,
``DJANGO_ALLOWED_HOSTS``; for the model, see ``project.extraction.client``. None is needed: without
any, the site keeps everything in files under ``var/``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dj_database_url

from project.environment import flag, listed, secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = BASE_DIR / "var"
VAR.mkdir(exist_ok=True)

DEBUG = flag("DJANGO_DEBUG", default=True)
SECRET_KEY = secret_key(debug=DEBUG, kept_in=VAR)
ALLOWED_HOSTS = listed("DJANGO_ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "llmcache",
    "project",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "project.middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Databases. With DATABASE_URL one database holds everything. Without, the cache has a file of its
# own: SQLite has one writer per file, and so the cache never waits for the site's transactions.

SQLITE: dict[str, Any] = {
    "timeout": 20,
    # A transaction that begins as a reader and then writes fails at once instead of waiting.
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}


def sqlite(file: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": SQLITE}


DATABASE_URL = os.environ.get("DATABASE_URL")
DATABASES: dict[str, Any]

if DATABASE_URL:
    DATABASES = {"default": dj_database_url.parse(DATABASE_URL, conn_health_checks=True)}
    if DATABASE_URL.startswith("sqlite"):
        DATABASES["default"]["OPTIONS"] = SQLITE
else:
    DATABASES = {"default": sqlite(VAR / "site.sqlite3"), "llmcache": sqlite(VAR / "cache.sqlite3")}

DATABASE_ROUTERS = ["llmcache.routers.LLMCacheRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Caches. Without Redis there is no hot tier: in the same file, a copy is no faster than the row.

REDIS_URL = os.environ.get("REDIS_URL")

CACHES: dict[str, Any] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}

if REDIS_URL:
    CACHES["llmcache"] = {"BACKEND": "llmcache.backends.RedisCache", "LOCATION": REDIS_URL}

LLMCACHE: dict[str, Any] = {
    "DATABASE": "llmcache" if "llmcache" in DATABASES else None,
    "CACHE": "llmcache" if "llmcache" in CACHES else None,
}

# Background work

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL") or REDIS_URL or "filesystem://"

if CELERY_BROKER_URL == "filesystem://":
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # The queue's one folder: what is sent there is what is taken from there.
        "data_folder_in": str(VAR / "broker/messages"),
        "data_folder_out": str(VAR / "broker/messages"),
        "control_folder": str(VAR / "broker/control"),
    }
    for folder in CELERY_BROKER_TRANSPORT_OPTIONS.values():
        Path(folder).mkdir(parents=True, exist_ok=True)

CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    "expire-entries": {
        "task": "llmcache.expire_entries",
        "schedule": timedelta(minutes=5),
        # Runs that nobody took while no worker was up need not be made up for.
        "options": {"expires": 240},
    },
    "finish-evictions": {
        "task": "llmcache.finish_evictions",
        "schedule": timedelta(minutes=1),
        "options": {"expires": 50},
    },
    "roll-up-usage": {
        "task": "llmcache.roll_up_usage",
        "schedule": timedelta(hours=1),
        "options": {"expires": 3000},
    },
}

# Languages and time

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

# Static files

STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"

# Security. Redirecting to HTTPS is left to whatever ends TLS in front of the site.

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = not DEBUG
CSRF_COOKIE_SECURE = not DEBUG
CSRF_COOKIE_HTTPONLY = True
SECURE_HSTS_SECONDS = 0 if DEBUG else 3600
