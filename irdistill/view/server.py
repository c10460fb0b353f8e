"""The server of the page, on the loopback address."""

from __future__ import annotations

import secrets
import socket
import webbrowser

import uvicorn

from irdistill.console.terminal import echo
from irdistill.errors import InputError
from irdistill.view.application import build_application
from irdistill.view.request_guard import LOOPBACK_HOSTS, TOKEN
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace


def serve(workspace: Workspace, options: ViewOptions) -> None:
    """Print the address of the page and answer until Ctrl-C.

    Raises:
        InputError: the port is in use.
    """
    token = secrets.token_urlsafe(24)
    listening = _listen(options.port)
    address = page_address(listening.getsockname()[1], token)
    server = uvicorn.Server(
        uvicorn.Config(
            build_application(workspace, token, options),
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    echo(f"{address}\nCtrl-C stops it.")
    if options.open:
        webbrowser.open(address)
    with listening:
        server.run(sockets=[listening])


def page_address(port: int, token: str) -> str:
    """The address that opens the page."""
    return f"http://{LOOPBACK_HOSTS[0]}:{port}/?{TOKEN}={token}"


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK_HOSTS[0], port))
    except OSError as error:
        listening.close()
        raise InputError(
            f"port {port} cannot be used: {error.strerror}; choose another."
        ) from error
    return listening
