"""Why a call would hit or miss, and what differs between two requests.

`explain` says what a lookup would find, `nearest_entry` finds the stored entry that is nearest,
`comparison` says what differs from it, and `diff` how, line by line. Nothing is served,
counted or written, and the model is never asked.
"""

from llmcache.explanation.comparison import Comparison, Subject, compare, subject_of
from llmcache.explanation.explain import (
    Explanation,
    explain_call,
    explain_entry,
    find,
    stored,
)
from llmcache.explanation.nearest_entry import nearest

__all__ = [
    "Comparison",
    "Explanation",
    "Subject",
    "compare",
    "explain_call",
    "explain_entry",
    "find",
    "nearest",
    "stored",
    "subject_of",
]
