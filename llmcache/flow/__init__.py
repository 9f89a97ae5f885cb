"""The way of one call: the rules, written once, and the drivers that carry them out.

`rules.answer` is a generator. It does no I/O: it yields what it needs (`Lookup`, `Acquire`, `Ask`,
`Store`, ...: see `steps`), is sent the result, and returns the answer. `drivers` carries the steps
out for a synchronous caller and for a coroutine, `stream_drivers` where the answer is a stream. So
the rules cannot differ between them, and are tested without a server.

`request` is what the calls of clients and of decorated functions have in common. `revalidation` has
a new answer fetched behind a caller who was given a stale one, and `fairness` keeps the loop going
when many calls begin at once.
"""
