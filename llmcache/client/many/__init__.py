"""Many calls at once: `answering` looks all of them up together, and asks for the rest.

Calls of one key are one `batch.Group`; for synchronous callers, `threads` ask the model.
"""
