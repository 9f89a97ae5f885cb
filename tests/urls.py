"""The URLs of the example site, which the tests visit too."""

from project.urls import urlpatterns

__all__ = ["urlpatterns"]
