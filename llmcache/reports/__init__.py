"""What the calls saved and cost, what is stored, and how the tiers are: to be read.

`usage` reads the ledger for one of the `periods`, `stored` finds the entries that are most worth
looking at, `health` what has to be well, and `formatting` says amounts in few words.
"""
