"""A server of the explorer with an engine that a test makes, and a client that sends requests unchanged."""

import contextlib
import http.client
import json
import urllib.parse
from types import SimpleNamespace
from typing import NamedTuple

from hyperrecon_jax.explorer import access, server, tokens


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self):
        return json.loads(self.content)


class Client:
    """Sends requests to `host`, a name with a port; with the token in a header unless `token` is ""."""

    def __init__(self, host, token):
        self.host, self.token = host, token

    def send(self, method, path, params=(), content=None, headers=None, *, timeout=60):
        connection = http.client.HTTPConnection(self.host, timeout=timeout)
        query = "?" + urllib.parse.urlencode(dict(params), doseq=True) if params else ""
        own = {"X-Token": self.token} if self.token else {}
        with contextlib.closing(connection):
            connection.request(method, path + query, content, {**own, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


def stub_engine(**parts):
    """An engine that has the parts which a test needs."""
    return SimpleNamespace(describe=lambda tab, linked: {"name": "stub"}, **parts)


@contextlib.contextmanager
def serving(engine, *, names=access.LOOPBACK):
    """A context with a server in a thread, and a client that has its token."""
    token = tokens.make_token()
    listener, http_server = server.listen("127.0.0.1", 0), server.make_server(engine, token=token, names=names)
    thread = server.start(http_server, listener)
    try:
        yield Client(f"127.0.0.1:{listener.getsockname()[1]}", token)
    finally:
        http_server.should_exit = True
        thread.join()
