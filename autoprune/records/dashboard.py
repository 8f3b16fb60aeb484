"""optuna-dashboard on a run's study. The server only reads, so a search may write at the same time."""

import errno
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import BaseStorage

from autoprune import rundir
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.records.storage import FILE, open_storage
from autoprune.written import without_password

Respond = Callable[..., Any]
Application = Callable[[dict[str, Any], Respond], Iterable[bytes]]


def serve(run: Path, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve a run's study until Ctrl-C.

    Args:
        run: the run's directory; the search may still be at work.
        host: name or address to listen on.
        port: 0 takes any free one.
        announce: called with the URL as soon as the server answers.

    Raises:
        UserError: optuna-dashboard is not installed, the run has no study, or nothing can listen there.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UserError("the dashboard needs the package: pip install 'autoprune[dashboard]'.") from error
    server = _server(host, port, _read_only(wsgi(_storage(run))))
    shown = f"[{host}]" if ":" in host else host
    with server:
        announce(f"http://{shown}:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def _storage(run: Path) -> BaseStorage:
    rundir.check_is_run(run)
    config = load_config(run / "config.yaml")
    if config.storage is None and not (run / FILE).is_file():
        raise UserError(f"the run '{run}' has no study yet: it is made when the search begins.")
    try:
        storage = open_storage(run, config.storage)
    except OSError as error:
        raise UserError(f"'{run / FILE}' cannot be read ({error.strerror}).") from error
    names = optuna.get_all_study_names(storage)
    if not names or (config.storage is not None and (config.study_name or run.name) not in names):
        where = f"'{without_password(config.storage)}'" if config.storage else f"'{run / FILE}'"
        raise UserError(f"the run '{run}' has no study in {where} yet: it is made when the search begins.")
    return storage


def _server(host: str, port: int, application: Application) -> WSGIServer:
    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True  # a browser that is still connected holds up no end
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return make_server(host, port, application, server_class=Server, handler_class=_Silent)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no host's name"
        way_out = "--port 0 takes any free one" if _is_about_port(error) else "--host takes an address of this machine"
        raise UserError(f"the dashboard cannot listen on {host}:{port} ({reason}): {way_out}.") from error


def _is_about_port(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)


def _read_only(application: Application) -> Application:
    """Refuse what would change a study: it is the run's, and written again from its journal."""

    def answer(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, respond)
        respond("405 Method Not Allowed", [("Content-Type", "application/json"), ("Allow", "GET, HEAD")])
        return [b'{"reason": "autoprune shows studies and changes none"}']

    return answer


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""
