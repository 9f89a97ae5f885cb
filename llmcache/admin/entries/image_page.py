"""The images of a conversation, each at an address of its own.

A strict Content-Security-Policy lets a page show no image that is written in the page. Here they
come from the site itself, to those who may read the conversation.
"""

from __future__ import annotations

from typing import Final

from django.http import Http404, HttpRequest, HttpResponse

from llmcache.admin.base import EntriesAdmin, EntryPage
from llmcache.admin.entries.content import Question, read_question
from llmcache.models import CacheEntry


def show(admin: EntriesAdmin, request: HttpRequest, entry: CacheEntry, number: int) -> HttpResponse:
    question = read_question(entry)
    image = question.image(number) if isinstance(question, Question) else None
    if image is None:
        raise Http404
    response = HttpResponse(image.content, content_type=image.media_type)
    # Whatever else the bytes may be: it is an image, and nothing in it runs.
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["Cache-Control"] = "private, max-age=3600"
    return response


PAGES: Final = (EntryPage("image", show, ("content",), methods=("GET",), path="/<int:number>/"),)
