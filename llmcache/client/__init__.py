"""The client: instructor's own classes, with the function that asks the model wrapped.

All methods of an `Instructor` (`create`, `create_with_completion`, ...) call its `create_fn`.
`wrap` returns a copy of the client whose `create_fn` goes through the flow first. Nothing here
touches settings, caches or models before the first call, so a client may be made at the import of
any module, and shared by threads.

`wrapping` makes the clients, `call` reads one call, `many` answers many at once, `shapes` and
`streams` know the kinds of answers, `replay` asks again for what is stored, by a client that
`registry` knows, and `fastpath` spares instructor what it has looked at before.
"""

from llmcache.client.inspection import aexplain, explain, key_for
from llmcache.client.many import acreate_many, create_many
from llmcache.client.wrapping import from_provider, wrap

__all__ = [
    "acreate_many",
    "aexplain",
    "create_many",
    "explain",
    "from_provider",
    "key_for",
    "wrap",
]
