"""`make bench`: how long it takes to be answered from a cache, llmcache's and others'.

`rows` says what is measured, and is where another peer is added; `question` is what all of them
answer; `settings` is the Django they run in; `measuring` takes the times and sees to it that every
call is a hit; `report` makes the table. Nothing here asserts a time.
"""
