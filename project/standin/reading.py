"""What simple patterns find in a text, by the name of the field that asks for it.

Every quantifier in the patterns is bounded, so that no text makes them slow.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress

LONGEST = 20_000
MOST_PASSAGES = 200

WORD = r"[^\W\d_a-z][\w.’'-]{1,30}"  # with a capital, where the script has them
DAY = r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{1,2} [A-Z][a-z]{2,8} \d{4}"
DAY_FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%d %B %Y", "%d %b %Y")
EMAIL = r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"
LINK = r"https?://[^\s<>\"')\]]{2,300}[^\s<>\"')\].,;:!?]"
PHONE = r"(?<![\w.,/-])(?:\+|\(?0)\d[\d ()/.-]{5,20}\d"
REFERENCE = r"\b[A-Z]{1,6}-[\w/-]{1,24}|(?<=[#№])\w[\w/-]{1,24}"
COMPANY = rf"(?:{WORD},? |& ){{1,5}}(?:GmbH|AG|Ltd\b\.?|LLC|Inc\b\.?|Corp\b\.?|S\.?A\.?R?L?\b)"
NAME = rf"{WORD}(?: {WORD}){{0,3}}"
NO_NAME = r"(?:Hello|Hi|Dear|Good|Hallo|Guten|Sehr|Liebe|Bonjour|Hola|Tel|Phone|Mobile)\b"
INTRODUCED = rf"(?:[Mm]y name is|I am|[Tt]his is|[Rr]egards,|[Tt]hanks,)\s{{1,4}}({NAME})"
NO_NUMBERS = rf"{PHONE}|{DAY}"
NUMBER = r"(?<![\w.,-])-?\d{1,15}(?:[.,]\d{1,15}){0,4}(?!\w)"
CURRENCIES = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY", "₹": "INR", "₽": "RUB"}
LABELLED = re.compile(r"^[ \t*-]{0,4}([^\n:|]{1,40}):[ \t]{0,8}(\S[^\n]{0,400})$", re.MULTILINE)
BULLET = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")

# The first kind counts that shares a word with the name of the field, or is its format.
KINDS: dict[str, tuple[str, set[str]]] = {
    "email": (EMAIL, {"email", "emails", "mail"}),
    "uri": (LINK, {"url", "urls", "website", "link", "links", "homepage"}),
    "phone": (PHONE, {"phone", "phones", "telephone", "mobile", "tel"}),
    "date": (DAY, {"date", "dates"}),
    "currency": (rf"[{''.join(CURRENCIES)}]|\b[A-Z]{{3}}(?= ?\d)", {"currency"}),
    "company": (COMPANY, {"company", "seller", "organisation", "organization"}),
    "reference": (REFERENCE, {"number", "reference", "order", "invoice"}),
}
PEOPLE = {"name", "person", "author", "sender", "customer", "contact"}
SUMMARIES = {"summary", "title", "subject", "headline"}
DESCRIPTIONS = {"description", "item", "product", "article"}

SENTENCES = r"(?<=[.!?。！？])\s+|;\s*|\n+"
# Where to look for several things: line by line, else by sentences, else by what commas part.
SEPARATORS = (r"\n+", SENTENCES, r"[,;、]\s*|\s(?:and|or|und|et|y)\s")


class Text:
    """A text to read; or one passage of it, which is about one thing."""

    def __init__(self, text: str, *, is_passage: bool = False) -> None:
        self.text = text[:LONGEST]
        self.folded = self.text.casefold()
        self.is_passage = is_passage
        self.labels = [(words_of(m[1]), m[2].strip()) for m in LABELLED.finditer(self.text)]
        self.numbers = [number(n) for n in re.findall(NUMBER, re.sub(NO_NUMBERS, " ", self.text))]
        self.unread_numbers = iter(self.numbers)
        sentences = _split(SENTENCES, self.text[:2000])
        # A greeting is short, and says nothing.
        self.opening = next((s for s in sentences if len(s) > 15), " ".join(sentences[:1]))

    def string(self, name: str) -> str | None:
        """What the text says about a field with this name."""
        words = set(words_of(name))
        if labelled := self.labelled(name):
            return next(iter(Text(labelled).all_of(name)), labelled)
        if found := self.all_of(name):
            return found[0]
        if words & PEOPLE:
            return self.person()
        if words & DESCRIPTIONS and self.is_passage:
            return self.without_figures()
        return self.labelled("subject") or self.opening if words & SUMMARIES else None

    def labelled(self, name: str) -> str | None:
        """What follows the label that shares the most words with the name."""
        words = set(words_of(name))
        shared = [(len(words.intersection(label)), said) for label, said in self.labels]
        most, said = max(shared, key=lambda one: one[0], default=(0, None))
        return said if most else None

    def all_of(self, name: str, kind: str | None = None) -> list[str]:
        """What is of this kind, or of that of a field with this name: first, what is near it."""
        words = words_of(name)
        named = (known for known, (_, names) in KINDS.items() if names.intersection(words))
        pattern, _ = KINDS.get(kind or next(named, ""), (None, None))
        if pattern is None:
            return []
        places = [self.folded.find(word) for word in words]
        near = [self.text[place : place + 60] for place in places if place >= 0]
        found = [match[0] for part in (*near, self.text) for match in re.finditer(pattern, part)]
        return list(dict.fromkeys(_plain(one) for one in found))

    def person(self) -> str | None:
        introduced = re.search(INTRODUCED, self.text)
        # One word with a capital is a name only where little else is said.
        least = 0 if self.is_passage else 1
        leading = rf"(?:\w{{1,20}}: ?)?(?!{NO_NAME})({WORD}(?: {WORD}){{{least},3}})"
        named = introduced or re.match(leading, self.text)
        return named[1].rstrip(".") if named else None

    def speaks_of(self, value: str) -> bool:
        """Whether it has one of the words, or one that begins like it, as “delivered” does."""
        beginnings = (word[:5] if len(word) > 3 else rf"{word}\b" for word in words_of(value))
        return any(re.search(rf"\b{beginning}", self.folded) for beginning in beginnings)

    def without_figures(self) -> str | None:
        words = re.sub(rf"{NUMBER}|[@€$£|]|\s[x×]\s", " ", self.text)
        return " ".join(words.split()).strip(" -:,") or None

    def passages(self) -> list[list[Text]]:
        """The text taken apart, in each of the ways in which it may list things."""
        ways = (_split(separator, self.text)[:MOST_PASSAGES] for separator in SEPARATORS)
        return [[Text(BULLET.sub("", one), is_passage=True) for one in way] for way in ways]


def words_of(name: str) -> list[str]:
    """``orderNumber``, ``order_number`` and ``Order number`` are the same two words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.casefold())


def number(written: str) -> int | float:
    """``1.234,56`` and ``1,234.56`` are one number: three digits after a mark are thousands."""
    cents = re.search(r"[.,](\d{1,2}|\d{4,})$", written)
    whole = re.sub(r"[.,]", "", written[: cents.start()] if cents else written)
    return float(f"{whole}.{cents[1]}") if cents else int(whole)


def _plain(found: str) -> str:
    """A day as in ISO 8601, a currency by its code, and all else as it is written."""
    for form in DAY_FORMATS if found[0].isdecimal() else ():
        with suppress(ValueError):
            return time.strftime("%Y-%m-%d", time.strptime(found, form))
    return CURRENCIES.get(found, found)


def _split(separator: str, text: str) -> list[str]:
    return [part.strip() for part in re.split(separator, text) if part.strip()]
