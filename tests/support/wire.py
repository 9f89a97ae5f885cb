"""What is said over a real socket: bodies in parts and codings, silence, proxies, TLS."""

from __future__ import annotations

import gzip
import select
import socket
import threading
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import urlsplit

import zstandard


def brotli(content: bytes) -> bytes:
    """In the format of Brotli, as it is: one block that is not compressed (RFC 7932, 9.2)."""
    head = (len(content) - 1) << 4 | 1 << 20
    return head.to_bytes(3, "little") + content + b"\x03"


#: By the names that HTTP has for them.
CODINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli,
    "zstd": zstandard.ZstdCompressor().compress,
}


class Served:
    """A server of HTTP/1.1 on a thread, while the block lasts; `asked` has the bodies it was sent.

    It says `parts`, in chunks or with a `content-length`; where it is `silent`, nothing after as
    many of them.
    """

    def __init__(self, parts: list[bytes], *, chunked: bool = True, **headers: str) -> None:
        self.parts, self.is_chunked = parts, chunked
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.silent: int | None = None
        self.asked: list[bytes] = []
        self.lines: list[str] = []
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.root = f"http://127.0.0.1:{self.port}"

    def over_tls(self, context: Any) -> Self:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.root = f"https://127.0.0.1:{self.port}"
        return self

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                served.asked.append(self.rfile.read(int(self.headers["content-length"])))
                served.say(self)

        return Handler

    def say(self, to: BaseHTTPRequestHandler) -> None:
        if self.silent == 0:
            self.ended.wait(60)
            return
        to.send_response(200)
        for name, value in self.headers.items():
            to.send_header(name, value)
        if self.is_chunked:
            to.send_header("transfer-encoding", "chunked")
        else:
            to.send_header("content-length", str(sum(map(len, self.parts))))
        to.end_headers()
        for part in self.parts[: self.silent]:
            to.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if self.is_chunked else part)
        if self.silent is not None:
            self.ended.wait(60)
        elif self.is_chunked:
            to.wfile.write(b"0\r\n\r\n")


class Proxy(Served):
    """Between a client and what it asks: `lines` has the first line of each request."""

    def __init__(self) -> None:
        super().__init__([])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_CONNECT(self) -> None:
                host, _, port = self.path.partition(":")
                with socket.create_connection((host, int(port))) as there:
                    proxy.lines.append(self.requestline)
                    self.send_response(200)
                    self.end_headers()
                    _pass_on(self.connection, there)
                self.close_connection = True

            def do_POST(self) -> None:
                proxy.lines.append(self.requestline)
                place = urlsplit(self.path)
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = "".join(
                    f"{name}: {value}\r\n"
                    for name, value in self.headers.items()
                    if name.lower() not in {"connection", "proxy-authorization"}
                )
                line = f"POST {place.path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"
                assert place.port
                with socket.create_connection(("127.0.0.1", place.port)) as there:
                    there.sendall(line.encode() + body)
                    while came := there.recv(65536):
                        self.wfile.write(came)
                self.close_connection = True

        return Handler


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """What either says to the other, until one of them ends."""
    while True:
        for said in select.select([one, other], [], [])[0]:
            if not (came := said.recv(65536)):
                return
            (other if said is one else one).sendall(came)
