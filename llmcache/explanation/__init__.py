"""Why a call would hit or miss, and what differs between two requests.

`explain` says what a lookup would find, `comparison` finds the stored entry that is nearest and
says what differs from it, and `diff` how, line by line. Nothing is served, counted or written, and
the model is never asked.
"""
