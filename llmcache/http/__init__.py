"""The HTTP client: a transport that remembers, below any SDK.

`clients` makes HTTP clients and transports, and puts one into the client of an SDK. `transport`
stands between an HTTP client and the network; `request` is one request as the flow sees it, and
`response` what came back, live or from the store. `wishes` carries what is asked of the cache
through an SDK's headers.

Nothing here imports httpx or httpx2: what is handed in says which of the two it is of.
"""
