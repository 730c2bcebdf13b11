"""Who gets an answer of the explorer's server, and through what: names, token, own page, proxies, tunnels."""

import contextlib
import http.cookiejar
import http.server
import socket
import stat
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hyperrecon_jax.explorer import access, handlers, server, tokens
from hyperrecon_jax.runtime.errors import InputError
from tests.explorer.serving import Client, serving, stub_engine

PATHS = ("/", "/app.js", "/style.css", "/api/run", "/api/slice", "/nothing")


@pytest.fixture(scope="module")
def client():
    with serving(stub_engine(), names=access.find_names("127.0.0.1", ["Scans.example"])) as client:
        yield client


def cookie_of(answer):
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("path", PATHS)
def test_nobody_without_the_token_gets_an_answer(client, path):
    stranger = Client(client.host, "")
    for headers in ({}, {"X-Token": "wrong"}, {"Cookie": f"hyperrecon-{client.host[10:]}=wrong"}, {"X-Token": "\xff"}):
        answer = stranger.send("GET", path, headers=headers)
        assert answer.status == 403
        assert b"open the address with ?token= in it that the command printed" in answer.content
        assert answer.headers["set-cookie"] is None
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert stranger.send("GET", path, {"token": "wrong"}).status == 403
    assert stranger.send("GET", path, {"token": client.token}).status == client.send("GET", path).status != 403


def test_a_cookie_stands_for_the_token(client):
    stranger = Client(client.host, "")
    answer = stranger.send("GET", "/", {"token": client.token})
    port = client.host.rpartition(":")[2]
    assert answer.headers["set-cookie"] == f"hyperrecon-{port}={client.token}; HttpOnly; SameSite=Strict"
    for cookie in (cookie_of(answer), f"other=1; hyperrecon-{port}=old; {cookie_of(answer)}"):
        assert stranger.send("GET", "/api/run", headers={"Cookie": cookie}).status == 200
    assert stranger.send("GET", "/api/run", headers={"Cookie": f"hyperrecon-1={client.token}"}).status == 403


def test_the_files_of_a_page_with_a_token_have_it_too(client):
    """In a frame a browser may keep no cookie. A token that is none is no way to put text into the page."""
    page = client.send("GET", "/", {"token": client.token}).content.decode()
    assert f'src="app.js?token={client.token}"' in page
    assert f'href="style.css?token={client.token}"' in page
    assert '<script src="app.js"></script>' in client.send("GET", "/").content.decode()
    page = client.send("GET", "/", {"token": '"><script>'}).content.decode()
    assert '"><script>' not in page.replace('"></script>', "")


def test_names(client):
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "scans.example", "Scans.Example.:443"):
        assert client.send("GET", "/api/run", headers={"Host": host}).status == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil", "10.0.0.1"):
        answer = client.send("GET", "/api/run", headers={"Host": host})
        assert answer.status == 400, host
        assert "--allow-host" in answer.json()["error"]
    names = access.find_names("0.0.0.0")
    assert {"localhost", "0.0.0.0", "127.0.0.1", socket.gethostname().lower()} <= names
    assert access.find_names("localhost") == access.LOOPBACK
    access.check_names(["a.example", "fe80::1"], argument="--allow-host")
    for wrong in ("", "http://a.example", "a.example:80", "a b", "a/b", "*"):
        with pytest.raises(InputError, match="--allow-host must be a name"):
            access.check_names([wrong], argument="--allow-host")


def test_other_pages_in_the_same_browser(client):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.send("GET", "/api/run", headers={"Sec-Fetch-Site": site}).status == status
        assert client.send("GET", "/", headers={"Sec-Fetch-Site": site}).status == 200  # a link may lead to the page
    own, port = client.host, client.host.rpartition(":")[2]
    for origin, status in (
        (f"http://{own}", 200),
        (f"https://{own}", 200),  # a proxy that takes HTTPS
        ("http://evil.example", 403),
        ("http://127.0.0.1:1", 403),
        (f"http://127.0.0.1:{port}.evil.example", 403),
        ("null", 403),
        ("http://[::1", 403),
    ):
        answer = client.send("POST", "/api/drop", {"job": "x"}, headers={"Origin": origin})
        assert answer.status == status, origin
    forwarded = {"Origin": "https://hub.example", "X-Forwarded-Host": "hub.example"}
    assert client.send("POST", "/api/drop", {"job": "x"}, headers=forwarded).status == 200


def test_headers(client):
    headers = client.send("GET", "/").headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    framed = client.send("GET", "/", {"token": client.token}).headers  # who frames the page knows the token
    assert "frame-ancestors" not in framed["content-security-policy"]


def test_the_token_of_a_user_stays_and_only_the_user_can_read_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    token, file = tokens.load_token(), tmp_path / "hyperrecon_jax/explorer_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) >= 32
    assert tokens.load_token() == token
    file.chmod(0o644)  # somebody may have read it
    other = tokens.load_token()
    assert other != token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    opener = tokens.write_opener(f"http://127.0.0.1:8080/?token={token}&x=1")
    assert f"url=http://127.0.0.1:8080/?token={token}&amp;x=1" in opener.read_text()
    assert stat.S_IMODE(opener.stat().st_mode) == 0o600
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))  # nothing can be kept
    assert tokens.load_token() != tokens.load_token()
    assert tokens.write_opener("http://127.0.0.1:8080/") is None


def test_the_address(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "scanner")
    for host, start in (("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://scanner:")):
        with server.listen(host, 0) as listener:
            assert server.page_address(listener, "abc") == f"{start}{listener.getsockname()[1]}/?token=abc"


class Proxy(http.server.BaseHTTPRequestHandler):
    """A reverse proxy that shows a server under a path, as jupyter-server-proxy does."""

    protocol_version = "HTTP/1.1"
    target, prefix = "", "/user/me/proxy/8080"

    def answer(self):
        if not self.path.startswith(f"{self.prefix}/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        answer = Client(self.target, "").send(self.command, self.path.removeprefix(self.prefix), (), body, headers)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = answer

    def log_message(self, *args):
        """Nothing: a test prints no log."""


@contextlib.contextmanager
def proxy(target):
    """A context with the host of a proxy and the path under which it shows a server."""
    handler = type("TargetProxy", (Proxy,), {"target": target})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy_server:
        threading.Thread(target=proxy_server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{proxy_server.server_port}{handler.prefix}"
        proxy_server.shutdown()


@contextlib.contextmanager
def tunnel(target):
    """A context with a host whose connections lead to a server, as those of `ssh -L` do."""
    host, port = target.split(":")

    ends = []

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection((host, int(port)))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for end in ends:
            end.close()


@pytest.mark.parametrize("way", [proxy, tunnel])
def test_through_a_proxy_with_a_path_and_through_a_tunnel(client, way):
    """The cookie of the first answer is sent with all later requests under the same path, and with no others."""
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    with way(client.host) as host:
        base = f"http://{host}/"
        page = browser.open(f"{base}?token={client.token}").read().decode()
        assert 'src="/' not in page
        assert 'href="/' not in page
        (cookie,) = cookies
        assert cookie.path == ("/user/me/proxy/8080" if way is proxy else "/")
        for path in ("app.js", "style.css", "api/run"):
            assert browser.open(base + path).status == 200
        own = {"Origin": f"http://{host.partition('/')[0]}", "Sec-Fetch-Site": "same-origin"}
        assert browser.open(urllib.request.Request(f"{base}api/drop?job=x", b"", own)).status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{base}api/run")


def test_all_addresses_in_the_page_are_relative():
    for file in Path(handlers.STATIC).glob("*.*"):
        text = file.read_text()
        for absolute in ('"/api', "'/api", "`/api", 'src="/', 'href="/', "url(/"):
            assert absolute not in text, file.name
