"""Which language a text is in: by its script, its letters, or its small words."""

from __future__ import annotations

import re

from project.standin import vocabulary

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


def language_of(text: str) -> str | None:
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
