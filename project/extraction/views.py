"""The page, as a synchronous and as an asynchronous view. All but the asking is shared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import openai
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods
from instructor.core.exceptions import InstructorError
from pydantic import BaseModel

import llmcache
from project.extraction import client as clients
from project.extraction.forms import QuestionForm
from project.extraction.wording import Account, Complaint, fields


@require_http_methods(["GET", "HEAD", "POST"])
def extract(request: HttpRequest) -> HttpResponse:
    form = _form(request)
    if not form.is_valid():
        return _page(request, form)
    with _watched() as result:
        result.answer = clients.client.create(**form.question())
    return _page(request, form, result)


@require_http_methods(["GET", "HEAD", "POST"])
async def extract_async(request: HttpRequest) -> HttpResponse:
    form = _form(request)
    if not form.is_valid():
        return _page(request, form)
    with _watched() as result:
        result.answer = await clients.async_client.create(**form.question())
    return _page(request, form, result)


@dataclass
class Result:
    """The answer and the account of how it came about, or else a complaint."""

    answer: BaseModel | None = None
    account: Account | None = None
    complaint: Complaint | None = None


@contextmanager
def _watched() -> Iterator[Result]:
    """Note what the cache did with the one call inside, or why the endpoint did not answer."""
    result = Result()
    try:
        with llmcache.capture() as calls:
            yield result
        result.account = Account(calls[-1]) if calls else None
    except (openai.OpenAIError, InstructorError) as error:
        result.complaint = Complaint.of(error)


def _form(request: HttpRequest) -> QuestionForm:
    return QuestionForm(request.POST if request.method == "POST" else None)


def _page(request: HttpRequest, form: QuestionForm, result: Result | None = None) -> HttpResponse:
    complaint = result.complaint if result else None
    context = {
        "form": form,
        "result": result,
        "fields": fields(result.answer) if result and result.answer else [],
        "model": clients.MODEL,
        "stand_in": clients.STAND_IN,
    }
    status = complaint.status if complaint else 422 if form.errors else 200
    return render(request, "extraction/page.html", context, status=status)
