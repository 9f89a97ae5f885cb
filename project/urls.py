"""The page, its asynchronous twin, and the admin."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from project.extraction import views

urlpatterns = [
    path("", views.extract, name="extract"),
    path("async/", views.extract_async, name="extract-async"),
    path("admin/", admin.site.urls),
    # The admin's pages name no icon, and browsers then ask for this one.
    path("favicon.ico", RedirectView.as_view(url=static("project/icon.svg"))),
]
