"""What a text says, found by rules: who, when, how much, in which language.

Every quantifier in the patterns here is bounded, so that no text makes them slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, cached_property
from html.parser import HTMLParser
from itertools import takewhile

from project.standin import vocabulary

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'”»)\]]{3,300}", re.IGNORECASE)
PHONE = re.compile(r"(?<![\w.,/-])(?:\+|00|\(\+?|0)\d[\d ()/.\u2011\u2013-]{5,20}\d(?![\d%])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,3})?\b")
NUMBER = re.compile(r"(?<![\w.,])[-−]?\d{1,18}(?:[.,'’٫٬  ]\d{1,3}){0,6}(?![\d])")
REFERENCE = re.compile(r"[#№]?\s?([A-Z]{0,6}[-/]?\d[\w/-]{1,24}|[A-Z]{2,6}-[\w/-]{2,24})", re.ASCII)
HTML = re.compile(
    r"<(?:html|body|div|p|br|table|td|span|script|style|a|h[1-6])\b[^>]{0,500}>", re.IGNORECASE
)
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

_ISO = re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_NUMERIC = re.compile(r"(?<![\d.])(\d{1,2})[./-] ?(\d{1,2})[./-] ?(\d{4})(?!\d)")
_EAST_ASIAN = re.compile(r"(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일]")
_VIETNAMESE = re.compile(r"(\d{1,2}) tháng (\d{1,2})(?:,? năm)? (\d{4})", re.IGNORECASE)
_DAY_FIRST = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|er|\.|º)? (?:de |ב)?([^\W\d_]{3,12})\.?,?(?: de| del)? (\d{4})"
)
_MONTH_FIRST = re.compile(r"\b([A-Za-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})")

_SIGNS = "|".join(re.escape(sign) for sign in vocabulary.CURRENCY_SIGNS)
_CODES = "|".join(sorted(vocabulary.CURRENCY_CODES))
_CURRENCY = re.compile(rf"{_SIGNS}|\b(?:{_CODES})\b")
_FIGURE = r"\d{1,12}(?:[.,'’٫٬\u00a0\u202f ]\d{2,3}){0,4}(?:[.,٫]\d)?"
_MONEY = rf"(?:{_SIGNS}|{_CODES})?\s?(?:{_FIGURE})\s?(?:{_SIGNS}|(?:{_CODES})\b)?"
_UNIT = (
    r"(?:pcs?\.?|pieces?|units?|Stück|Stk\.?|szt\.?|ks|adet|uds?\.?|un\.?|шт\.?|τεμ\.?|"
    r"件|個|个|개|台|h|hrs?|Std\.?|chiếc|ชิ้น|नग|عدد|יח['׳])"
)
# 3 x Widget @ 4.50 — 2 × Câble à 9,99 € — ٣ × لوحة مفاتيح بسعر 150
_LINE_QUANTITY_FIRST = re.compile(
    rf"^[\W_]{{0,4}}(?P<quantity>\d{{1,6}}(?:[.,٫]\d{{1,2}})?) ?{_UNIT}? ?[x×X*✕] ?{_UNIT}? ?"
    rf"(?P<description>[^\n]{{2,120}}?)[ ,，:]{{0,3}}"
    rf"(?:@|[–—-] ?|\bà\b|\bzu je\b|\bje\b|\bat\b|\beach\b|\bpo\b|\ba\b|\bpor\b|\bπρος\b|\bпо\b|"
    rf"بسعر|במחיר|هر عدد|单价|單價|単価|단가|ราคา|giá|दर|de)\s?(?P<price>{_MONEY})"
)
# Widget | 3 | 4.50 | 13.50, with bars, tabs or wide gaps between the columns
_COLUMNS = re.compile(r"\s*(?:[|\t│]|\s{3,})\s*")
# 键盘 × 2，单价 199 元 — Widget x3 - 4.50
_LINE_QUANTITY_LATER = re.compile(
    rf"^[\W_]{{0,4}}(?P<description>[^\n|]{{2,120}}?) ?[x×✕] ?(?P<quantity>\d{{1,6}}) ?{_UNIT}?"
    rf"[^\d\n]{{1,12}}(?P<price>{_MONEY})"
)


@dataclass(frozen=True)
class Item:
    """One position of an invoice, an order or a receipt."""

    description: str
    quantity: Decimal
    unit_price: Decimal

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.unit_price


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
        return list(dict.fromkeys(found for _, found in sorted(_dates(self.text))))

    @cached_property
    def numbers(self) -> list[Decimal]:
        return [number for match in NUMBER.findall(self.text[:20_000]) if (number := amount(match))]

    @cached_property
    def currency(self) -> str | None:
        """The currency that is named most often."""
        named = [vocabulary.CURRENCY_SIGNS.get(hit, hit) for hit in _CURRENCY.findall(self.text)]
        return max(named, key=named.count) if named else None

    @cached_property
    def items(self) -> list[Item]:
        return [item for line in self.text.splitlines() if (item := _item(line))]

    @cached_property
    def total(self) -> Decimal | None:
        """What is to be paid: as labelled, else as the positions add up."""
        for line in reversed(self.lines):
            if opens_with(line, "total") and (figures := _amounts(line)):
                return figures[-1]
        return sum((item.amount for item in self.items), Decimal()) if self.items else None

    @cached_property
    def language(self) -> str | None:
        return _language(self.text[:4000])

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
            if opens_with(line, "due") and (found := sorted(_dates(line))):
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


def readable(text: str) -> str:
    """The text as a reader sees it: without markup, scripts and marks of direction."""
    if HTML.search(text):
        parser = _Plain()
        parser.feed(text)
        parser.close()
        text = "".join(parser.parts)
    return text.translate(_INVISIBLE).strip()


# Marks of direction and of order. The joiners stay: Persian words and emoji are made with them.
_INVISIBLE = dict.fromkeys(
    (0x200B, 0x200E, 0x200F, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)


class _Plain(HTMLParser):
    unread = frozenset(("script", "style", "title", "head"))
    breaks = frozenset(("p", "div", "br", "tr", "li", "h1", "h2", "h3", "table", "ul", "ol"))

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._unread_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread_depth += tag in self.unread
        if tag in self.breaks:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unread:
            self._unread_depth = max(0, self._unread_depth - 1)
        if tag in ("td", "th"):
            self.parts.append("\t")
        elif tag in self.breaks:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unread_depth:
            self.parts.append(data)


def label(text: str) -> str:
    """A label reduced to what two ways of writing it have in common."""
    return " ".join(re.sub(r"[^\w\s#&]", " ", text.casefold()).split())


def opens_with(line: str, concept: str) -> bool:
    """Whether the line begins with a label for ``concept``."""
    return label(line[:60]).startswith(_labels(concept))


@cache
def _labels(concept: str) -> tuple[str, ...]:
    return tuple(label(word) for word in vocabulary.LABELS[concept])


def amount(figure: str) -> Decimal | None:
    """``1.234,56``, ``1,234.56``, ``1 234,56`` and ``١٬٢٣٤٫٥٦`` are one number.

    The last separator is the decimal one, unless three digits follow it.
    """
    digits = figure.replace("−", "-").replace("٫", ".").replace("٬", ",")
    match = re.fullmatch(r"(-?)([\d.,'’\s]*\d)", digits.strip())
    if match is None:
        return None
    whole, separator, cents = _split_decimal(match[2])
    plain = "".join(character for character in whole if character.isdecimal())
    return Decimal(f"{match[1]}{plain or 0}{separator and '.'}{cents}")


def _split_decimal(figure: str) -> tuple[str, str, str]:
    at = max(figure.rfind("."), figure.rfind(","))
    cents = figure[at + 1 :]
    if at < 0 or len(cents) == 3 or not cents.isdecimal():
        return figure, "", ""
    return figure[:at], ".", cents


def _amounts(line: str) -> list[Decimal]:
    figures = re.findall(_FIGURE, line)
    return [value for figure in figures if (value := amount(figure)) is not None]


def _item(line: str) -> Item | None:
    if re.search(r"[|\t│]", line):
        return _item_from_columns(line)
    match = _LINE_QUANTITY_FIRST.match(line) or _LINE_QUANTITY_LATER.match(line)
    return _item_from_match(match) if match else _item_from_columns(line)


def _item_from_match(match: re.Match[str]) -> Item | None:
    prices = _amounts(match["price"])
    quantity = amount(match["quantity"])
    description = match["description"].strip(" -–—,，:")
    if not prices or quantity is None or not description:
        return None
    return Item(description, quantity, prices[0])


def _item_from_columns(line: str) -> Item | None:
    cells = [cell for cell in _COLUMNS.split(line.strip(" |\t│")) if cell]
    figures = [_only_figure(cell) for cell in cells]
    words = [cell for cell, figure in zip(cells, figures, strict=True) if figure is None]
    numbers = [figure for figure in figures if figure is not None]
    if not words or len(numbers) < 2:
        return None
    # A first column of running numbers is no quantity.
    quantity, price = numbers[1:3] if _is_numbered(figures, numbers) else numbers[:2]
    return Item(words[0], quantity, price)


def _is_numbered(figures: list[Decimal | None], numbers: list[Decimal]) -> bool:
    return figures[0] is not None and len(numbers) > 2 and figures[1] is None


def _only_figure(cell: str) -> Decimal | None:
    bare = _CURRENCY.sub("", cell).strip()
    bare = re.sub(rf"\s?{_UNIT}$", "", bare).rstrip("%")
    return amount(bare) if bare[:1].isdecimal() else None


def _is_phone(text: str) -> bool:
    digits = sum(character.isdecimal() for character in text)
    return 7 <= digits <= 15 and not _ISO.fullmatch(text) and not _NUMERIC.search(text)


def _dates(text: str) -> Iterator[tuple[int, date]]:
    """Every date with its position, in whatever way it is written."""
    for pattern, order in (
        (_ISO, "ymd"),
        (_EAST_ASIAN, "ymd"),
        (_NUMERIC, "dmy"),
        (_VIETNAMESE, "dmy"),
        (_DAY_FIRST, "dmy"),
        (_MONTH_FIRST, "mdy"),
    ):
        for match in pattern.finditer(text):
            if day := _date(dict(zip(order, match.groups(), strict=True))):
                yield match.start(), day


def _date(parts: dict[str, str]) -> date | None:
    year, day = int(parts["y"]), int(parts["d"])
    month = int(parts["m"]) if parts["m"].isdecimal() else _month(parts["m"])
    if 2400 < year < 2700:
        year -= 543  # the Buddhist era, in which Thailand counts
    if month > 12 >= day:
        month, day = day, month
    try:
        return date(year, month, day) if 1900 <= year <= 2100 else None
    except ValueError:
        return None


def _month(word: str) -> int:
    folded = word.casefold()
    return vocabulary.MONTHS.get(folded) or vocabulary.MONTHS.get(folded[1:]) or 0


_SCRIPTS = (
    ("ko", re.compile("[가-힣]")),
    ("ja", re.compile("[ぁ-ヿ]")),
    ("zh", re.compile("[一-鿿]")),
    ("th", re.compile("[ก-๛]")),
    ("hi", re.compile("[ऀ-ॿ]")),
    ("he", re.compile("[א-ת]")),
    ("fa", re.compile("[پچژگکی]")),
    ("ar", re.compile("[ء-ي]")),
    ("el", re.compile("[α-ωά-ώ]")),
    ("uk", re.compile("[іїєґ]")),
    ("ru", re.compile("[а-я]")),
)

# Letters that hardly any other language with Latin script has.
_LETTERS = (
    ("cs", re.compile("[ěřů]")),
    ("pl", re.compile("[łąęśń]")),
    ("tr", re.compile("[ğış]")),
    ("vi", re.compile("[ơưđạảấầẩậắặẹẽếềểệịọốồổộớờợụủứừửữựỵ]")),
)


def _language(text: str) -> str | None:
    for code, letters in _SCRIPTS:
        if len(letters.findall(text)) > len(text) // 40 + 2:
            return code
    for code, letters in _LETTERS:
        if len(letters.findall(text)) > len(text) // 100 + 1:
            return code
    words = re.findall(r"[^\W\d_]+", text.casefold())
    scores = {
        code: sum(word in known for word in words) for code, known in vocabulary.STOP_WORDS.items()
    }
    best = max(scores, key=lambda code: scores[code])
    return best if scores[best] > 1 else None


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
