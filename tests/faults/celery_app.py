"""The Celery application of a worker on a site of the tests."""

from __future__ import annotations

import ast
import os

import django
from celery import Celery
from django.conf import settings

django.setup()
settings.LLMCACHE = ast.literal_eval(os.environ["LLMCACHE_TEST_LLMCACHE"])

app = Celery("faults", broker=os.environ["CELERY_BROKER_URL"])
app.autodiscover_tasks(["llmcache"], force=True)
