"""`cached`: functions that remember what they returned.

`decorator` has the decorator and what it makes of a function, `request` reads one call, `returns`
the return annotation, and `naming` tells one function from another.
"""
