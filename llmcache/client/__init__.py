"""The client: instructor's own classes, with the function that asks the model wrapped.

All methods of an `Instructor` (`create`, `create_with_completion`, ...) call its `create_fn`.
`wrap` returns a copy of the client whose `create_fn` goes through the flow first. Nothing here
touches settings, caches or models before the first call, so a client may be made at the import of
any module, and shared by threads.

`wrapping` makes the clients, `call` reads one call, `many` answers many at once, `shapes` and
`streams` know the kinds of answers, and `replay` rebuilds the request of what is stored, for a
client that `registry` knows.
"""
