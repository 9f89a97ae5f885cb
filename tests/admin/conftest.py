"""Who is logged in."""

import pytest
from django.contrib.auth.models import Permission
from django.test import Client


@pytest.fixture
def client_with(django_user_model):
    """Logs in a member of staff with these permissions."""

    def log_in(*codenames):
        user = django_user_model.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return log_in
