"""What a text says, found by rules: who, when, how much, in which language.

Every quantifier in the patterns here is bounded, so that no text makes them slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import cache, cached_property
from itertools import takewhile

from project.standin import vocabulary
from project.standin.amounts import CURRENCY, amount, amounts_in
from project.standin.dates import dates_in, looks_like_date
from project.standin.items import Item, item_in
from project.standin.languages import language_of
from project.standin.readable import readable

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'”»)\]]{3,300}", re.IGNORECASE)
PHONE = re.compile(r"(?<![\w.,/-])(?:\+|00|\(\+?|0)\d[\d ()/.\u2011\u2013-]{5,20}\d(?![\d%])")
NUMBER = re.compile(r"(?<![\w.,])[-−]?\d{1,18}(?:[.,'’٫٬  ]\d{1,3}){0,6}(?![\d])")
REFERENCE = re.compile(r"[#№]?\s?([A-Z]{0,6}[-/]?\d[\w/-]{1,24}|[A-Z]{2,6}-[\w/-]{2,24})", re.ASCII)
LABELLED = re.compile(r"^[\W_]{0,4}([^\n:：|\t]{1,40}?)\s{0,3}[:：|\t]\s{0,8}(\S[^\n]{0,400})$")
BULLET = re.compile(r"^(?:[-*•–·]|\d{1,2}[.)])\s+(?=\S)")
CLAUSE_END = re.compile(r"(?<=[.!?…。！？؟।])\s+|[;；]\s*|\n+")
PHRASE_END = re.compile(r"[,;，、；،]\s*|\s(?:and|or|&|und|oder|et|ou|y|e)\s|\n+")
# Jason is 25 years old — Extract: Ann Lee is 30
AGED = re.compile(
    r"(?:\w{1,20}: ?)?(?P<name>[^\W\d_]\w{0,30}(?: [^\W\d_]\w{0,30}){0,2}) is \d{1,3}(?![\d.,]?\d)"
    r"(?= ?(?:years?\b|y\b|and\b|[,;.!]|$))",
    re.MULTILINE,
)
SENTENCE_END = re.compile(r"(?<=[.!?…。！？؟।])\s+|\n+")


class Facts:
    """A text, and on demand what stands in it. Nothing is looked for twice."""

    def __init__(self, text: str) -> None:
        self.text = readable(text)

    @cached_property
    def folded(self) -> str:
        return self.text.casefold()

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    @cached_property
    def points(self) -> list[str]:
        """The lines without the marks of a list before them."""
        return [BULLET.sub("", line) for line in self.lines]

    @cached_property
    def clauses(self) -> list[str]:
        """Sentences, and what semicolons part in them."""
        return [part.strip() for part in CLAUSE_END.split(self.text) if part.strip()]

    @cached_property
    def phrases(self) -> list[str]:
        """What stands between commas, or the words that list."""
        return [part.strip() for part in PHRASE_END.split(self.text) if part.strip()]

    @cached_property
    def sentences(self) -> list[str]:
        return [part.strip() for part in SENTENCE_END.split(self.text) if part.strip()]

    @cached_property
    def labels(self) -> dict[str, str]:
        """Lines such as “Label: value”, by the label's words. The first one counts."""
        found: dict[str, str] = {}
        for line in self.lines:
            if match := LABELLED.match(line):
                found.setdefault(label(match[1]), match[2].strip(" |\t"))
        return found

    @cached_property
    def emails(self) -> list[str]:
        return _distinct(address.strip(".") for address in EMAIL.findall(self.text))

    @cached_property
    def urls(self) -> list[str]:
        return _distinct(url.rstrip(".,;:!?") for url in URL.findall(self.text))

    @cached_property
    def phones(self) -> list[str]:
        found = (match.strip(" .") for match in PHONE.findall(self.text))
        return _distinct(phone for phone in found if _is_phone(phone))

    @cached_property
    def dates(self) -> list[date]:
        return list(dict.fromkeys(found for _, found in sorted(dates_in(self.text))))

    @cached_property
    def numbers(self) -> list[Decimal]:
        return [number for match in NUMBER.findall(self.text[:20_000]) if (number := amount(match))]

    @cached_property
    def currency(self) -> str | None:
        """The currency that is named most often."""
        named = [vocabulary.CURRENCY_SIGNS.get(hit, hit) for hit in CURRENCY.findall(self.text)]
        return max(named, key=named.count) if named else None

    @cached_property
    def items(self) -> list[Item]:
        return [item for line in self.text.splitlines() if (item := item_in(line))]

    @cached_property
    def total(self) -> Decimal | None:
        """What is to be paid: as labelled, else as the positions add up."""
        for line in reversed(self.lines):
            if opens_with(line, "total") and (figures := amounts_in(line)):
                return figures[-1]
        return sum((item.amount for item in self.items), Decimal()) if self.items else None

    @cached_property
    def language(self) -> str | None:
        return language_of(self.text[:4000])

    @cached_property
    def person(self) -> str | None:
        candidates = (
            self.labelled("name"),
            self._introduced(),
            self._signed(),
            self._sender(),
            self._named_on_top(),
            self._aged(),
        )
        return next((name for name in candidates if name), None)

    @cached_property
    def company(self) -> str | None:
        return self.labelled("company") or self._by_legal_form()

    @cached_property
    def subject(self) -> str | None:
        telling = (sentence for sentence in self.sentences if not _is_greeting(sentence))
        return self.labelled("subject") or next(telling, None)

    @cached_property
    def due_date(self) -> date | None:
        for line in self.lines:
            if opens_with(line, "due") and (found := sorted(dates_in(line))):
                return found[-1][1]
        return None

    @cached_property
    def issue_date(self) -> date | None:
        return next((day for day in self.dates if day != self.due_date), None)

    def labelled(self, concept: str) -> str | None:
        """The value after one of the labels that stand for ``concept``."""
        return next((self.labels[name] for name in _labels(concept) if name in self.labels), None)

    def reference(self, concept: str) -> str | None:
        """The number of an invoice or an order, wherever it is called by name."""
        labelled = (self.labelled(concept) or "").split()
        if numbered := [word for word in labelled if re.search(r"\d", word)]:
            return numbered[-1].strip("#№,;.")
        for written in _longest_first(vocabulary.LABELS[concept]):
            start = self.folded.find(written)
            if start >= 0 and (match := REFERENCE.search(self._beside(start + len(written)))):
                return match[1]
        return None

    def hints(self, word: str) -> int:
        """How often the text speaks of ``word``, in any of the languages."""
        spoken = vocabulary.HINTS.get(word, frozenset()) | {word}
        return sum(1 for hint in spoken if _speaks_of(self.folded, hint))

    def _beside(self, start: int) -> str:
        return self.text[start : start + 40].partition("\n")[0]

    def _introduced(self) -> str | None:
        match = vocabulary.INTRODUCTIONS.search(self.text[:20_000])
        return _as_name(_leading_name(match["name"])) if match else None

    def _signed(self) -> str | None:
        for line, following in zip(self.lines, self.lines[1:], strict=False):
            if label(line) in vocabulary.SIGN_OFFS:
                return _as_name(following)
        return None

    def _sender(self) -> str | None:
        match = re.search(
            r"^[^\n:]{0,20}:? ?\"?([^\n<\"@:]{3,60})\"? <[^\s@]{1,64}@", self.text, re.MULTILINE
        )
        return _as_name(match[1]) if match else self._from_address()

    def _from_address(self) -> str | None:
        local = self.emails[0].partition("@")[0] if self.emails else ""
        parts = [part for part in re.split(r"[._-]", local) if part.isalpha() and len(part) > 1]
        return " ".join(part.title() for part in parts) if len(parts) > 1 else None

    def _named_on_top(self) -> str | None:
        """A signature or a business card begins with the name, a letter with a greeting."""
        name = _as_name(self.lines[0]) if self.lines else None
        return name if name and " " in name and not _is_greeting(name) else None

    def _aged(self) -> str | None:
        match = AGED.match(self.text)
        return _as_name(match["name"]) if match else None

    def _by_legal_form(self) -> str | None:
        for pattern in (vocabulary.LEGAL_FORM_AFTER, vocabulary.LEGAL_FORM_BEFORE):
            if match := pattern.search(self.text[:20_000]):
                return match[0].strip()
        return None


def label(text: str) -> str:
    """A label reduced to what two ways of writing it have in common."""
    return " ".join(re.sub(r"[^\w\s#&]", " ", text.casefold()).split())


def opens_with(line: str, concept: str) -> bool:
    """Whether the line begins with a label for ``concept``."""
    return label(line[:60]).startswith(_labels(concept))


@cache
def _labels(concept: str) -> tuple[str, ...]:
    return tuple(label(word) for word in vocabulary.LABELS[concept])


def _as_name(text: str) -> str | None:
    """The text, where it may be a person's name: one to five words without figures."""
    name = re.split(r"[,;|(<\n/–—]|\s{2,}| - |(?<=\w{3})\. ", text.strip(" \"'“”*_-"))[0].strip(
        " .!:：，。、"
    )
    words = name.split()
    if not 1 <= len(words) <= 5 or not 2 <= len(name) <= 60 or re.search(r"[\d@_?!:]", name):
        return None
    return name if all(_may_be_part_of_name(word) for word in words) else None


def _leading_name(text: str) -> str:
    """The name that the text begins with, where the sentence goes on behind it."""
    words = list(takewhile(_may_be_part_of_name, text.split()))
    # In a script without capital letters nothing but its length ends a name.
    return " ".join(words if words and words[0][0].isupper() else words[:2])


def _is_greeting(text: str) -> bool:
    return len(text) < 50 and label(text).partition(" ")[0] in vocabulary.GREETINGS


def _may_be_part_of_name(word: str) -> bool:
    particles = ("de", "da", "dos", "del", "la", "van", "von", "der", "den", "bin", "al", "y", "e")
    return not word[0].islower() or word in particles


def _speaks_of(folded: str, hint: str) -> bool:
    # Whole words only where words are short and Latin: “fault” is not in “default”.
    if hint in folded and hint.isascii():
        return re.search(rf"(?<![a-z]){re.escape(hint)}", folded) is not None
    return hint in folded


def _longest_first(words: frozenset[str]) -> list[str]:
    return sorted(words, key=lambda word: (-len(word), word))


def _distinct(values: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _is_phone(text: str) -> bool:
    digits = sum(character.isdecimal() for character in text)
    return 7 <= digits <= 15 and not looks_like_date(text)
