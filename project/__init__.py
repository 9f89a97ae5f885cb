"""The example site: a page that extracts, the admin, and an offline stand-in for the model."""

from project.celery import app as celery_app

__all__ = ["celery_app"]
