"""One call of a client: its arguments, its key, and how its answer is kept.

`request` reads what `create` was given. What counts in the key is told by `arguments`, `headers`
and `endpoints` (where it is sent), and `world` knows what an answer does not follow from alone.
`hooks` hear what happens until there is one, and `origin` is what the calls of one client have in
common.
"""
