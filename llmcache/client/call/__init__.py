"""One call of a client: its arguments, its key, and how its answer is kept.

`request` reads what `create` was given. What counts in the key is told by `arguments` and
`endpoints` (where it is sent). `hooks` hear what happens until there is an answer, and `origin` is
what the calls of one client have in common.
"""
