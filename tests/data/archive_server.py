"""A local HTTP server of one file, with Range and If-Range, that misbehaves as it is told; and LMDBs in zips."""

import io
import re
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = "photos_lmdb.zip"


class ArchiveServer(ThreadingHTTPServer):
    """Serves `content` under `url`. `faults` are used up, one a request, a dictionary each:

    status N             answer that, without the file
    cut N                close the connection after N bytes of the body
    hold N               stop after N bytes until `release` is set
    new (bytes, tag)     from now on the file is another one
    ignore_range         answer 200 with the whole file
    headers {…}          put these into the answer; None leaves one out

    `log` has (Range, If-Range, status, bytes sent) of every request that came.
    """

    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = content, '"first"'
        self.faults: list[dict] = []
        self.log: list[tuple] = []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/{NAME}"

    def sent(self) -> int:
        return sum(entry[3] for entry in self.log)

    def handle_error(self, *_):
        """Clients that are killed are what the tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        fault = server.faults.pop(0) if server.faults else {}
        if "new" in fault:
            server.content, server.etag = fault["new"]
        body, status, first = server.content, 200, 0
        if "status" in fault or self.path != f"/{NAME}":
            status, body = fault.get("status", 404), b"no such file"
        elif wanted and not fault.get("ignore_range") and self.headers.get("If-Range", server.etag) == server.etag:
            first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            status = 206 if first < len(body) else 416
        headers = {"Content-Length": len(body) - first, "ETag": server.etag}
        if status == 206:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        if status == 416:
            headers["Content-Length"], first = 0, len(body)
        entry = [wanted, self.headers.get("If-Range"), status, 0]
        server.log.append(entry)
        self.send_response(status)
        for name, value in (headers | fault.get("headers", {})).items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        stop = fault.get("cut", fault.get("hold", len(body)))
        try:
            self.send(body[first : first + stop], entry)
            if "hold" in fault:
                server.release.wait(60)
                self.send(body[first + stop :], entry)
        finally:
            if stop < len(body) - first or "headers" in fault:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, body, entry):
        for start in range(0, len(body), 1 << 14):
            self.wfile.write(body[start : start + (1 << 14)])
            entry[3] += len(body[start : start + (1 << 14)])

    def log_message(self, *_):
        pass


def make_zip(entries: dict, compression=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of {name or ZipInfo: content}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()
