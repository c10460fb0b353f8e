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
    page = PageServer(workspace, options)
    echo(f"{page.address}\nCtrl-C stops it.")
    if options.open:
        webbrowser.open(page.address)
    page.run()


class PageServer:
    """The page on an open port.

    Attributes:
        address: opens the page; it has the token.

    Raises:
        InputError: the port is in use.
    """

    def __init__(self, workspace: Workspace, options: ViewOptions) -> None:
        token = secrets.token_urlsafe(24)
        self._listening = _listen(options.port)
        self.address = page_address(self._listening.getsockname()[1], token)
        self._server = uvicorn.Server(
            uvicorn.Config(
                build_application(workspace, token, options),
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    def run(self) -> None:
        """Answer until Ctrl-C or `stop`."""
        with self._listening:
            self._server.run(sockets=[self._listening])

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def page_address(port: int, token: str) -> str:
    """The address that opens the page."""
    return f"http://{LOOPBACK_HOSTS[0]}:{port}/?{TOKEN}={token}"


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK_HOSTS[0], port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(
            f"port {port} cannot be used: {error.strerror}; choose another."
        ) from error
    return listening
