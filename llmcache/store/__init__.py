"""The store: a hot tier on a Django cache alias in front of rows in a database.

`lookup`, `save` (and their ``a*`` twins), `remove_batch` and `remove_hot` are what the rest of
llmcache does with it. `hot` and `durable` are the tiers, `entries` goes through them, `removal`
takes out, `hits` counts, `placement` decides on which thread and connection database work runs,
and `safety` is the one place where a tier's failure stops.
"""
