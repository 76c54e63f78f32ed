"""A proxy that breaks what passes through it. What it does to which attempt of a call is in the path: with
`http://…/S503,lost/v1` as base URL the first attempt is answered with 503 and never forwarded, the second one's connection
breaks once it was forwarded, and all others pass."""

import contextlib
import http.client
import http.server
import json
import os
import socket
import socketserver
import struct
import sys
import threading
import time
import urllib.parse

# Not forwarded: `S` and a status, and …
BEFORE = ("reset", "refused")
# Forwarded: `A` and a status, for which the whole answer is thrown away, and …
AFTER = ("lost", "swallowed", "headers", "cut")
PATIENCE = 180
GATEWAY = urllib.parse.urlsplit(os.environ["OPENAI_BASE_URL"])
MOST = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def log_message(self, *_):
        pass

    def do_POST(self):
        _, plan, rest = self.path.split("/", 2)
        attempt = int(self.headers["x-stainless-retry-count"])
        manner = dict(enumerate(plan.split(","))).get(attempt, "pass")
        body = self.rfile.read(min(int(self.headers["content-length"]), MOST))
        if manner in BEFORE:
            if manner == "refused":
                # Shut before this one breaks off, so that its retry finds nobody.
                self.server.shut()
            return self.break_off()
        if manner[0] == "S":
            return self.refuse(int(manner[1:]))
        upstream = http.client.HTTPConnection(GATEWAY.hostname, GATEWAY.port, timeout=PATIENCE)
        with contextlib.closing(upstream):
            self.forward(upstream, manner, "/" + rest, body)

    def forward(self, upstream, manner, path, body):
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        upstream.request("POST", path, body, kept)
        if manner == "lost":
            # The gateway has it, and may have begun.
            time.sleep(0.003)
            return self.break_off()
        answer = upstream.getresponse()
        if manner == "swallowed":
            answer.read()
            return self.break_off()
        if manner[0] == "A":
            answer.read()
            return self.refuse(int(manner[1:]))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if manner == "headers":
            return self.break_off()
        if manner == "cut":
            self.chunk(answer.read(100))
            return self.break_off()
        while piece := answer.read1(1 << 16):
            self.chunk(piece)
        self.chunk(b"")

    def chunk(self, piece):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def refuse(self, status):
        body = json.dumps({"error": {"message": "broken", "type": "broken", "code": None, "param": None}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def break_off(self):
        """Resets the connection, once what was sent has arrived."""
        self.wfile.flush()
        time.sleep(0.05)
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Breaking(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        # Bound and not listened on: while nobody listens at this port, the system gives it to nobody else.
        self.kept = socket.socket()
        self.kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.kept.bind(("127.0.0.1", 0))
        super().__init__(self.kept.getsockname(), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True, args=(0.05,)).start()

    def url(self, plan):
        return f"http://127.0.0.1:{self.port}/{plan}/v1"

    def handle_error(self, request, client_address):
        # Clients that meet a broken connection break off others that they keep.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def shutdown_request(self, request):
        # Only closed: with an orderly end first, nothing would be reset.
        self.close_request(request)

    def shut(self):
        """Nobody listens here for a moment, which is above a client's first pause and below both of its pauses."""
        self.shutdown()
        self.socket.close()
        threading.Timer(0.6, self.open).start()

    def open(self):
        self.socket = socket.socket()
        self.server_address = ("127.0.0.1", self.port)
        self.server_bind()
        self.server_activate()
        threading.Thread(target=self.serve_forever, daemon=True, args=(0.05,)).start()
