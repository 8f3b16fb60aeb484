"""Serves the live page until Ctrl-C: the routes, and the address that the server listens on."""

import hashlib
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoprune.errors import UserError
from autoprune.watching.folder import Folder, Place

try:
    import uvicorn
    from pydantic import ValidationError
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from autoprune.watching.guard import Guard
except ImportError as error:
    raise UserError("the live page needs packages: pip install 'autoprune[watch]'.") from error

from autoprune.arguments import told
from autoprune.drawing.style import STYLE
from autoprune.watching.comparison_page import comparison_page
from autoprune.watching.control import Control, Limits
from autoprune.watching.folder_page import folder_page
from autoprune.watching.run_page import Page, run_page

STATIC = Path(__file__).parent / "static"
GONE = "there is no such run (any more)."


def serve(path: Path, host: str, port: int, control: bool, announce: Callable[[str], None]) -> None:
    """Serve the live page of a run, of a comparison or of a folder of them, until Ctrl-C.

    Args:
        path: the directory. It is only read, unless `control`.
        host: name or address to listen on.
        port: 0 takes any free one.
        control: whether the page can stop and resume searches and change their limits.
        announce: called with the address, which holds the token, as soon as the server listens.

    Raises:
        UserError: there is no such directory, or nothing can listen there.
    """
    guard = Guard(application(Folder(path), Control() if control else None), host)
    with listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        announce(f"http://{shown}:{listener.getsockname()[1]}/?token={guard.token}")
        config = uvicorn.Config(
            guard, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=1
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: nothing can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no host's name"
        raise UserError(
            f"the page cannot listen on {host}:{port} ({reason}): --port 0 takes any free port, --host an address of "
            "this machine."
        ) from error
    return listener


def application(folder: Folder, control: Control | None) -> Starlette:
    """The routes. A guard must stand before them.

    Args:
        folder: what is watched.
        control: what stops and resumes searches; None shows only.
    """

    def page_of(name: str) -> Page:
        place = folder.place(name)
        page = _drawn(folder, place, control.notice(place.path) if control else None)
        page["can"] = {what: can and control is not None for what, can in page["can"].items()}
        return page | {"control": control is not None, "name": name}

    def page(request: Request) -> Response:
        body = json.dumps(page_of(request.query_params.get("name", "")), allow_nan=False).encode()
        version = hashlib.sha256(body).hexdigest()[:16]
        if request.query_params.get("seen") == version:
            return Response(status_code=204)
        return Response(body, media_type="application/json", headers={"X-Version": version})

    async def stop(request: Request) -> Response:
        return await changed(request, lambda run, _: _needed(control).stop(run))

    async def resume(request: Request) -> Response:
        return await changed(request, lambda run, asked: _needed(control).resume(run, Limits(**asked)))

    async def changed(request: Request, work: Callable[[Path, dict[str, Any]], None]) -> Response:
        if control is None:
            return _problem("this page only shows: start `autoprune watch` with --control to change something.", 403)
        try:
            asked = await request.json()
            if not isinstance(asked, dict):
                raise ValueError
            place = folder.place(str(asked.pop("name", "")))
            if place.kind == "folder":
                raise UserError(f"'{place.path}' is a folder of runs: open one of them.")
            await run_in_threadpool(work, place.path, asked)
        except (LookupError, OSError):
            return _problem(GONE, 404)
        except ValidationError as error:
            return _problem(f"{told(error)}.", 422)
        except (ValueError, RecursionError):
            return _problem("that is no JSON object.", 400)
        except UserError as error:
            return _problem(str(error), 409)
        return JSONResponse({"done": True})

    return Starlette(
        routes=[
            Route("/", _static("index.html", "text/html")),
            Route("/watch.js", _static("watch.js", "text/javascript")),
            Route("/watch.css", _static("watch.css", "text/css", STYLE)),
            Route("/icon.svg", _static("icon.svg", "image/svg+xml")),
            Route("/api/page", page),
            Route("/api/stop", stop, methods=["POST"]),
            Route("/api/resume", resume, methods=["POST"]),
        ],
        exception_handlers={kind: lambda request, error: _problem(GONE, 404) for kind in (LookupError, OSError)},
    )


def _drawn(folder: Folder, place: Place, notice: str | None) -> Page:
    children = folder.children(place)
    if place.kind == "comparison":
        return comparison_page(place, [(run, folder.read(run)) for run in children], notice)
    if place.kind == "folder":
        return folder_page(
            place, [(one, folder.read(one, brief=True) if one.kind == "run" else None) for one in children]
        )
    return run_page(place, folder.read(place), notice)


def _needed(control: Control | None) -> Control:
    assert control is not None
    return control


def _problem(text: str, status: int) -> Response:
    return JSONResponse({"problem": text}, status)


def _static(name: str, kind: str, before: str = "") -> Callable[[Request], Awaitable[Response]]:
    content = f"{before}{(STATIC / name).read_text(encoding='utf-8')}"

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer
