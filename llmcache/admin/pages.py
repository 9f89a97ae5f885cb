"""What the pages of one entry have in common: who may see them, by which method, and their URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpResponse

#: Given the admin, the request, the entry, and what else is in the address.
Respond = Callable[..., HttpResponse]


@dataclass(frozen=True, slots=True)
class EntryPage:
    """One address below that of an entry.

    `needs` are the names of the permissions that it takes besides viewing, as in
    ``has_<name>_permission``. What changes something is only done by POST.
    """

    name: str
    respond: Respond
    needs: tuple[str, ...]
    methods: tuple[str, ...] = ("POST",)
    #: What follows the name in the address.
    path: str = "/"
