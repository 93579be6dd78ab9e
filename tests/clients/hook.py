"""A site's own service that says who may connect, as the broker's hook; its answers are a table of the scenarios."""

import http.server
import json
import socket
import threading


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.service.asked.append((question, self.headers.get("Authorization")))
        status, answer = self.server.service.answers.get(question["username"], (403, None))
        body = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self):
        accepted = super().get_request()
        self.service.connections.append(accepted[0])
        return accepted

    def handle_error(self, *_):
        """A connection that was ended below a thread that waits for its next request."""


class Service:
    """At one port; can be down and come back."""

    def __init__(self, port):
        self.port, self.server = port, None
        #: By user name: the status and the JSON of the answer.
        self.answers = {}
        #: Each question, and what was shown with it.
        self.asked = []
        self.connections = []

    def start(self):
        self.server = Server(("127.0.0.1", self.port), Answering)
        self.server.service = self
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        """Nobody listens any more, and kept connections end."""
        if self.server is None:
            return
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ended before
        self.connections.clear()
