"""Above the ways in: each knows its own clients and entries, and here the right one is picked.

`wrapping` is `llmcache.wrap`, and `replay` asks again for what is stored, whichever way it came.
Each imports the way in that is needed, and no other: they bring libraries along.
"""
