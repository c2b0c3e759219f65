"""An HTTP server for as long as a context is open, on loopback unless it is told otherwise."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections open and says nothing: the terminal belongs to the demo."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        """Until the other side closes, or dies."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    @property
    def url(self) -> str:
        """The server's own address, as whoever asks calls it: in a cluster it is the name of a service."""
        assert isinstance(self.server, ThreadingHTTPServer)
        return f"http://{self.headers.get('Host') or f'127.0.0.1:{self.server.server_port}'}"


@contextmanager
def serving(handler: type[QuietHandler], address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[str]:
    """Serves with `handler`, on a free port where it names none; gives the base URL on this machine."""
    server = ThreadingHTTPServer(address, handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
