"""The page, as a synchronous and as an asynchronous view. All but the asking is shared."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from project.extraction.asking import Result, ask, ask_async
from project.extraction.client import MODEL, STAND_IN
from project.extraction.forms import Question, QuestionForm
from project.extraction.wording import fields


@require_http_methods(["GET", "HEAD", "POST"])
def extract(request: HttpRequest) -> HttpResponse:
    form, question = _read(request)
    return _page(request, form, question, ask(question) if question else None)


@require_http_methods(["GET", "HEAD", "POST"])
async def extract_async(request: HttpRequest) -> HttpResponse:
    form, question = _read(request)
    return _page(request, form, question, await ask_async(question) if question else None)


def _read(request: HttpRequest) -> tuple[QuestionForm, Question | None]:
    if request.method != "POST":
        return QuestionForm(), None
    form = QuestionForm(request.POST)
    return form, form.question() if form.is_valid() else None


def _page(
    request: HttpRequest, form: QuestionForm, question: Question | None, result: Result | None
) -> HttpResponse:
    context = {
        "form": form,
        "question": question,
        "result": result,
        "fields": fields(result.answer) if result and result.answer else [],
        "model": MODEL,
        "stand_in": STAND_IN,
    }
    return render(request, "extraction/page.html", context, status=_status(form, result))


def _status(form: QuestionForm, result: Result | None) -> int:
    if result and result.complaint:
        return result.complaint.status
    return 422 if form.errors else 200
