"""What the calls saved and cost, what is stored, and how the tiers are: to be read.

`usage` reads the ledger for one of the `periods`, `stored` finds the entries that are most worth
looking at, `health` what has to be well. `upkeep` does what is to be done from time to time, and
`words` says amounts in few words.
"""

from llmcache.statistics.upkeep import roll_up_usage

__all__ = ["roll_up_usage"]
