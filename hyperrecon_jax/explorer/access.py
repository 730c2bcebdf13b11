"""Who gets an answer of the server: those who have its token, under one of its names, and its own page.

The token is in the address that the command prints. A browser that opens it gets a cookie, so that the page and its links
need no token. Where a browser keeps no cookie, as in the frame of a notebook, the page sends the token in a header.

    names           a page of another name, which somebody lets lead to this machine (DNS rebinding), gets nothing
    token           other users of the machine or of the network get nothing
    Sec-Fetch-Site, Origin
                    another page in the same browser, which has the cookie, may not ask in the user's place
"""

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperrecon_jax.runtime.errors import InputError

LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
TOKEN_HEADER = "x-token"
NO_TOKEN = (
    "The explorer answers only those who have its token: open the address with ?token= in it that the command printed when"
    " it started, or that the notebook shows."
)
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'"
)


def check_names(names: Iterable[str], *, argument: str) -> None:
    """Raise `InputError` unless these can be names or addresses of a server, without scheme and port."""
    for name in names:
        if not _can_be_name(name):
            raise InputError(
                f"{argument} must be a name such as explorer.example.org, without http:// and port, got {name!r}."
            )


def find_names(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """The names, in lower case, under which a browser may open a server that listens at `host`.

    They are those of the loopback, those that the user allows and, if the server listens to the network, the name and the
    addresses of this machine.
    """
    names = {*LOOPBACK, *allowed}
    if host not in LOOPBACK:
        addresses = (address.address for group in psutil.net_if_addrs().values() for address in group)
        names |= {host, socket.gethostname(), *(address.partition("%")[0] for address in addresses)}
    return frozenset(name.lower().rstrip(".") for name in names)


class Guard:
    """Middleware that answers instead of the application if a request may not be answered, and adds headers.

    Args:
        app: the application.
        token: who asks must have it.
        names: of the server, as by `find_names`.
    """

    def __init__(self, app: ASGIApp, *, token: str, names: frozenset[str]):
        self.app, self.token, self.names = app, token, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        has_token_in_address = _is_equal(request.query_params.get("token", ""), self.token)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # who puts the page into a frame with the token in its address, as the notebook does, may ask anyway
                frames = "" if has_token_in_address else "; frame-ancestors 'self'"
                headers["Content-Security-Policy"] = CONTENT_POLICY + frames
                if has_token_in_address:  # no Path: a browser takes the folder of the page, also behind a proxy
                    headers.append("Set-Cookie", f"{_cookie(request)}={self.token}; HttpOnly; SameSite=Strict")
            await send(message)

        answer = self._find_refusal(request, has_token_in_address) or self.app
        await answer(scope, receive, send_with_headers)

    def _find_refusal(self, request: Request, has_token_in_address: bool) -> Response | None:
        """The answer to a request that may not be answered."""
        name = _host_name(request.headers.get("host", ""))
        if name not in self.names:
            return _refuse(request, f"The explorer has no name {name[:80]!r}; it gets one by --allow-host NAME.", 400)
        if not has_token_in_address and not self._has_token(request):
            return _refuse(request, NO_TOKEN, 403)
        if request.scope["path"].startswith("/api/") and not _is_of_own_page(request):
            return _refuse(request, "The explorer answers its own page alone, no other page in the same browser.", 403)
        return None

    def _has_token(self, request: Request) -> bool:
        if _is_equal(request.headers.get(TOKEN_HEADER, ""), self.token):
            return True
        cookies = (cookie.strip().partition("=") for cookie in request.headers.get("cookie", "").split(";"))
        # a browser may send several of one name, of several folders
        return any(name == _cookie(request) and _is_equal(value, self.token) for name, _, value in cookies)


def _is_of_own_page(request: Request) -> bool:
    """Whether a request is from the server's page, or from no page at all.

    Browsers say so in Sec-Fetch-Site where the connection is safe (HTTPS, or this machine), and in Origin with a POST. A
    proxy may have changed Host; then it says in X-Forwarded-Host what it was, which no page can set for another server.
    """
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        own = urlsplit(origin).netloc
    except ValueError:
        return False
    return own != "" and own in (request.headers.get("host"), request.headers.get("x-forwarded-host"))


def _cookie(request: Request) -> str:
    """The name of the cookie. It has the port that the browser sees, because cookies of all ports are kept together."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"hyperrecon-{port if port.isdecimal() else 'token'}"


def _can_be_name(name: str) -> bool:
    if ":" not in name:
        return re.fullmatch(r"[\w.-]+", name) is not None
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """The name in a Host header, in lower case; "" if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_equal(sent_token: str, token: str) -> bool:
    """Whether two texts are equal; takes the same time wherever they differ."""
    return hmac.compare_digest(sent_token.encode("utf-8", "surrogatepass"), token.encode())


def _refuse(request: Request, sentence: str, status: int) -> Response:
    if request.scope["path"].startswith("/api/"):
        return JSONResponse({"error": sentence}, status)
    return PlainTextResponse(sentence + "\n", status)
