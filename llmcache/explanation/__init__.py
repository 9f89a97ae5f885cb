"""Why a call would hit or miss, and what differs between two requests.

`explaining` says what a lookup would find, `neighbours` finds the stored entry that is nearest,
`comparing` says what differs from it, and `differences` how, line by line. Nothing is served,
counted or written, and the model is never asked.
"""

from llmcache.explanation.comparing import Comparison, Subject, compare, subject_of
from llmcache.explanation.explaining import (
    Explanation,
    explain_call,
    explain_entry,
    find,
    look,
)
from llmcache.explanation.neighbours import nearest

__all__ = [
    "Comparison",
    "Explanation",
    "Subject",
    "compare",
    "explain_call",
    "explain_entry",
    "find",
    "look",
    "nearest",
    "subject_of",
]
