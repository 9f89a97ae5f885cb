"""Single flight: of many callers who want the answer to one question, one asks the model.

`acquire` and `aacquire` are what a call does; `begin` and `lead` what a refresh does behind it.
`flights` lines up the callers of one process, so that one of them stands for all; `leading` is what
that one does to get the lease that all processes share; `places` are where such a lease is kept,
the hot tier or the rows; `renewal` keeps alive what is held.
"""

from llmcache.leases.flights import Ending, Flight
from llmcache.leases.leading import Lease, aacquire, acquire, alead, begin, lead

__all__ = ["Ending", "Flight", "Lease", "aacquire", "acquire", "alead", "begin", "lead"]
