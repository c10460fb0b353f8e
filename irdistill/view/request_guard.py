"""What every request must show before a page answers, and the headers of every response.

The page listens on the loopback interface only. Other users of the machine, and pages of other
origins in the same browser, can still send requests there. They know neither the token nor the
cookie; a page whose name was rebound to the loopback address shows a foreign ``Host``.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
TOKEN = "token"
"""Parameter of the address that holds the token."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RequestGuard:
    """Middleware that refuses requests without the token, and sets the security headers.

    The first request carries the token in its address. The answer sets a cookie and leads to the
    same address without the token, which then stays out of the browser's history. Requests that
    change something must also come from this page's origin.

    Args:
        token: the secret of this server.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope) if scope["type"] == "http" else _refuse("Only HTTP.")
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if urlsplit(f"//{host}").hostname not in LOOPBACK_HOSTS:
            return _refuse("This page answers on the loopback address only.", 400)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        cookie = f"irdistill-{host.rpartition(':')[2]}"
        for name, value in query:
            if name == TOKEN and self._is_token(value):
                return _without_token(scope["path"], query, cookie, value)
        if not self._is_token(_cookie(headers.get("cookie", ""), cookie)):
            return _refuse("Open the address that irdistill view printed: it holds a token.", 403)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin") != f"http://{host}":
            return _refuse("This request comes from another page.", 403)
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refuse("A request that changes something must be JSON.", 415)
        return None

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self.token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _without_token(path: str, query: list[tuple[str, str]], cookie: str, token: str) -> Response:
    rest = urlencode([(name, value) for name, value in query if name != TOKEN])
    target = "/" + path.lstrip("/\\")
    answer = RedirectResponse(f"{target}?{rest}" if rest else target, status_code=303)
    answer.set_cookie(cookie, token, httponly=True, samesite="strict")
    return answer


def _refuse(reason: str, status: int = 400) -> Response:
    return PlainTextResponse(f"{reason}\n", status)
