"""What providers say and are told, each in its dialect.

`admission` and `streams` read endings, `errors` failures, `pricing` tokens and costs. `arguments`,
`headers` and `addresses` tell what of a request can change the answer, and `world` what an answer
does not follow from alone.
"""
