"""One call of a client: its arguments, its key, and how its answer is kept.

`reading` makes a `request.ClientRequest` of what `create` was given. What counts in the key is told
by `names` and `arguments`, `headers` and `endpoints` (where it is sent), and `world` knows what an
answer does not follow from alone. `origin` is what the calls of one client have in common.
"""
