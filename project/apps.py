"""The example site as a Django app, for its commands and its static files."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "project"
    verbose_name = "llmcache example site"
