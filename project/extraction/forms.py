"""What a visitor can ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from pydantic import BaseModel

from project.extraction.examples import examples
from project.extraction.schemas import SCHEMAS

LONGEST_TEXT = 200_000


@dataclass(frozen=True)
class Question:
    """A text, and what to read from it."""

    schema: type[BaseModel]
    text: str
    language: str
    again: bool


class QuestionForm(forms.Form):
    """A response model, and an example or a text of one's own."""

    model = forms.ChoiceField(
        label="What to extract",
        choices=[(name, schema.__name__) for name, schema in SCHEMAS.items()],
        widget=forms.RadioSelect,
        initial="contact",
    )
    example = forms.ChoiceField(
        label="An example text",
        choices=lambda: _grouped_examples(),
        initial=lambda: next(iter(examples())),
        required=False,
    )
    text = forms.CharField(
        label="Or a text of your own",
        help_text="It takes the place of the example.",
        max_length=LONGEST_TEXT,
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "dir": "auto", "spellcheck": "false"}),
    )
    again = forms.BooleanField(label="Ask the model, even if the answer is stored", required=False)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and not cleaned.get("text") and not cleaned.get("example"):
            raise forms.ValidationError("Pick an example, or paste a text.")
        return cleaned

    def question(self) -> Question:
        """What the valid form asks."""
        asked = self.cleaned_data
        example = examples().get(asked["example"])
        own = asked["text"]
        return Question(
            schema=SCHEMAS[asked["model"]],
            text=own or (example.text if example else ""),
            language="" if own or not example else example.language,
            again=asked["again"],
        )


def _grouped_examples() -> list[tuple[str, Any]]:
    groups = [
        (
            f"{schema.__name__}s",
            [(slug, str(example)) for slug, example in examples().items() if example.model == name],
        )
        for name, schema in SCHEMAS.items()
    ]
    return [("", "None"), *groups]
