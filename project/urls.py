"""The page, its asynchronous twin, and the admin."""

from django.contrib import admin
from django.urls import path

from project.extraction import views

urlpatterns = [
    path("", views.extract, name="extract"),
    path("async/", views.extract_async, name="extract-async"),
    path("admin/", admin.site.urls),
]
