"""What happens to callers when something breaks: on real servers that the tests stop and kill.

Everything that uses llmcache here runs in processes of its own (`children`), on databases and a
Redis that nobody else has (`sites`). The test itself breaks things, and counts.

The short version takes seconds a fault; ``LLMCACHE_LONG=1`` makes it a minute. ``make faults`` runs
the long version and writes docs/faults.md.
"""
