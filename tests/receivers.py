"""The other ends of subscriptions: a receiver that fails as told, time that a test moves."""

import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from daemon.subscribers import SubscriberRelay


class Receiver:
    """An HTTP server that answers as told and remembers what it was sent."""

    def __init__(self):
        self.answers, self.got = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = outer.answers.pop(0) if outer.answers else 200
                outer.got.append((answer, dict(self.headers.items()), body))
                if answer == "hang":
                    time.sleep(1.0)
                    return
                if answer == "cut":
                    self.connection.close()
                    return
                self.send_response(answer)
                if answer == 302:
                    self.send_header("location", outer.url + "elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    @property
    def taken(self):
        """Ids of what was answered with yes, in the order it came."""
        return [sent["webhook-id"] for answer, sent, _ in self.got if answer == 200]


class Clock:
    """Time that the test moves."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now

    def later(self, **by):
        self.now += timedelta(**by)


class OneChannel(SubscriberRelay):
    """A relay with one carrier, that says how many alerts a round handed over."""

    def once(self, store):
        (taken,) = super().once(store).values()
        return taken

    @property
    def carrier(self):
        (found,) = self.carriers.values()
        return found
