"""Answers to bytes and back: never pickle, and never a byte that was not checked.

`answers` turns an answer into JSON and proves that it comes back the same (`equality`),
`completions` does so for the provider's own response, `envelope` frames, checks, compresses and
encrypts what is written.
"""
