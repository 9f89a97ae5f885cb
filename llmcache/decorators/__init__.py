"""`cached`: functions that remember what they returned.

`functions` has the decorator and what it makes of a function, `requests` reads one call,
`returns` the return annotation, `identity` tells one function from another, and `explaining` why a
call would hit or miss.
"""

from llmcache.decorators.functions import CachedFunction, cached

__all__ = ["CachedFunction", "cached"]
