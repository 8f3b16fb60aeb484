"""Decides who may ask the page's server, before anything else sees the request.

- The Host header must be an address, `localhost` or the name that the user gave. A name of someone else's that leads to
  this machine (DNS rebinding) is refused.
- A random token, which the printed address holds, is needed once; then a cookie has it.
- A request that changes something must come from a page of this server (Origin header) and be JSON.
- Every answer forbids the browser to load or to run anything from elsewhere.
"""

import hmac
import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST = 10_000  # bytes of a request's body


class Guard:
    """Lets those requests through to an application that may ask.

    Args:
        application: what is guarded.
        host: the name or address that the user asked the server to listen on.
        token: what the address holds; None draws one.
    """

    def __init__(self, application: ASGIApp, host: str, token: str | None = None) -> None:
        self._application, self._host = application, host.lower()
        self.token = token or secrets.token_urlsafe(24)
        self._cookie = f"autoprune-{secrets.token_hex(4)}"  # cookies of one machine's ports are not told apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refused(request) or self._first_visit(request) or self._application
        await answer(scope, receive, guarded)

    def _refused(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._is_own(host):
            return PlainTextResponse("This server does not answer to that host's name.", 400)
        if not self._has_token(request):
            return PlainTextResponse("Open the address that `autoprune watch` printed: it holds the token.", 403)
        if request.method in ("GET", "HEAD"):
            return None
        if not _is_from(request.headers.get("origin", ""), host):
            return PlainTextResponse("This is asked from a page of another server.", 403)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return PlainTextResponse("The body must be application/json.", 415)
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MOST:
            return PlainTextResponse(f"The body must have a length of at most {MOST:,} bytes.", 413)
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self._host):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_token(self, request: Request) -> bool:
        given = (request.query_params.get("token", ""), request.cookies.get(self._cookie, ""))
        return any(hmac.compare_digest(one.encode("utf-8", "replace"), self.token.encode()) for one in given)

    def _first_visit(self, request: Request) -> Response | None:
        """Move the token from the address, which histories keep, into a cookie."""
        if request.url.path != "/" or "token" not in request.query_params:
            return None
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self.token, httponly=True, samesite="strict", path="/")
        return answer


def _is_from(origin: str, host: str) -> bool:
    """Whether an Origin header names a page of this host; what cannot be read is of another."""
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False
