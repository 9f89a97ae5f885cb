"""Single flight: of many callers who want the answer to one question, one asks the model.

`acquire` and `aacquire` are what a call does; `start` and `lead` what a refresh does behind it.
`flights` lines up the callers of one process, so that one of them stands for all; `acquisition` is
how that one gets the lease that all processes share; `places` are where such a lease is kept, of
two `kinds`: the hot tier, and the rows.
"""

from llmcache.leases.acquisition import Lease, aacquire, acquire, alead, alone, lead, start
from llmcache.leases.flights import Ending, Flight

__all__ = ["Ending", "Flight", "Lease", "aacquire", "acquire", "alead", "alone", "lead", "start"]
