"""Uploads an export to a repository of the hub: what the export wrote, and nothing else that lies in its directory."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.errors import UserError
from autoprune.exporters.directory import FORMAT, MANIFEST
from autoprune.files.reading import explained, read_json
from autoprune.policy import Policy

SECONDS = 120.0
"""How long a hub may be silent."""
WAYS = "`hf auth login` keeps one on this machine, and HF_TOKEN gives one for a single command"


@dataclass(frozen=True)
class Pushed:
    """The result of an upload.

    Args:
        url: of the repository.
        repo: its name, with its owner.
        revision: the branch.
        commit: of the upload.
        files: names of what belongs to the export.
        size: bytes of them.
    """

    url: str
    repo: str
    revision: str
    commit: str
    files: list[str]
    size: int


def push(
    path: str | Path,
    repo: str,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Upload an export to a repository of the hub, which is made unless it exists.

    Args:
        path: directory of an export. Only files that the export wrote are uploaded.
        repo: name of the repository, as `me/smaller`.
        private: whether a new repository can be seen by its owners alone.
        revision: branch, which is made unless it exists. None is the main branch.
        message: message of the commit. None says what was pruned, and by what.
        token: of the hub. None takes the one that `hf auth login` or HF_TOKEN gives.

    Returns:
        The repository, the commit and the names of the files.

    Raises:
        UserError: the directory is no export, the name is none of a repository, there is no token or it may not write
            there, or the hub cannot be reached.
    """
    path = Path(path)
    names = files_of(path)
    check_name(repo)
    message = message or _message(path)
    from huggingface_hub import HfApi, get_token

    token = token or get_token()
    if not token:
        raise UserError(f"there is no token of the hub here, and without one nothing can be uploaded: {WAYS}.")
    api = HfApi(token=token, library_name="autoprune")
    with _explained(repo, api.endpoint), _patience():
        made = api.create_repo(repo, private=True if private else None, exist_ok=True)
        if revision is not None:
            api.create_branch(made.repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id, folder_path=path, revision=revision, commit_message=message,
            allow_patterns=[glob.escape(name) for name in names],
        )  # fmt: skip
    size = sum((path / name).stat().st_size for name in names)
    return Pushed(str(made), made.repo_id, revision or "main", str(commit.oid), names, size)


def files_of(path: Path) -> list[str]:
    """The names of the files that an export wrote into its directory, which are all there.

    Raises:
        UserError: it is no export, or a file of it is gone or is no file.
    """
    manifest = path / MANIFEST
    if not manifest.is_file() or manifest.is_symlink():
        raise UserError(_no_export(path))
    with explained("the list of files", manifest, "`autoprune export` writes the directory anew"):
        record = read_json(manifest)
        names = record["files"]
        if record["format"] != FORMAT or not isinstance(names, list) or "policy.json" not in names:
            raise ValueError("it lists no export")
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
                raise ValueError(f"{str(name)[:100]!r} is no name of a file in it")
    for name in names:
        if (path / name).is_symlink() or not (path / name).is_file():
            raise UserError(f"'{path / name}' is gone or is a link: `autoprune export` writes the directory anew.")
    return sorted(names)


def check_name(repo: str) -> None:
    """Raise a UserError unless a repository of the hub may be called so."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, and not in __all__

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(
            f"'{repo[:200]}' is no name of a repository: it is OWNER/NAME, as me/smaller, of letters, digits, '-', '_' "
            "and '.', with at most 96 characters."
        ) from None


def _no_export(path: Path) -> str:
    """Why a directory is not uploaded, and what is in its place."""
    if not path.is_dir():
        return f"'{path}' is no directory: push takes the directory that `autoprune export` wrote."
    if (path / "config.yaml").is_file():
        exports = sorted(file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{MANIFEST}"))
        if exports:
            return f"'{path}' is a run, which stays here. Push one of its exports: {', '.join(map(str, exports))}."
        return f"'{path}' is a run, which stays here: `autoprune export {path} DIR`, then `autoprune push DIR REPO`."
    if (path / "policy.json").is_file() and (path / "config.json").is_file():
        return f"'{path}' has no {MANIFEST}, as exports of an earlier version: export the run again, and push that."
    return f"'{path}' is no export of a network: `autoprune export RUN DIR` writes one."


def _message(path: Path) -> str:
    """The message of a commit, from the policy file."""
    known = Policy.load(path / "policy.json").provenance
    versions = known.get("versions")
    version = versions.get("autoprune", "") if isinstance(versions, dict) else ""
    return " ".join(f"Pruned by the agent {known.get('agent')} of autoprune {version}".split())[:200]


@contextmanager
def _patience() -> Iterator[None]:
    """Let a hub be silent for `SECONDS`; its library waits for an answer without end unless it is told otherwise."""
    from huggingface_hub import get_session

    session: Any = get_session()
    before = getattr(session, "timeout", None)  # earlier versions have another client
    if before is None or before.read is not None:
        yield
        return
    session.timeout = SECONDS
    try:
        yield
    finally:
        session.timeout = before


@contextmanager
def _explained(repo: str, endpoint: str) -> Iterator[None]:
    """Turn what the hub and its library raise into one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError("the hub is switched off by HF_HUB_OFFLINE: unset it to push.") from None
    except HfHubHTTPError as error:
        raise UserError(_refused(repo, error)) from error
    except HFValidationError as error:
        raise UserError(f"the hub takes no such name: {_first(error)}.") from error
    except ValueError as error:  # its answers about cards and branches
        raise UserError(f"the hub refused the upload to '{repo}': {_first(error)}.") from error
    except (LookupError, TypeError) as error:  # of its library, on an answer that is none of the hub's
        raise UserError(f"what answers at {endpoint} is no hub ({type(error).__name__}: {_first(error)}).") from error
    except OSError as error:
        raise UserError(f"the hub at {endpoint} cannot be reached ({_first(error)}).") from error
    except Exception as error:  # of whichever library carries the requests
        if not _is_transport(error):
            raise
        raise UserError(f"the hub at {endpoint} cannot be reached ({_first(error)}).") from error


def _is_transport(error: BaseException | None) -> bool:
    """Whether a request, or what was underneath it, did not get through."""
    while error is not None:
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "hf_xet"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _refused(repo: str, error: BaseException) -> str:
    """What the hub's answer means."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    told = getattr(error, "server_message", None) or _first(error)
    reason = " ".join(str(told).split())[:300].rstrip(".")
    if status == 401:
        return f"the hub does not know the token ({reason}): {WAYS}."
    if status == 403:
        return f"the token may not write to '{repo}' ({reason}): it needs the role write, and rights of that owner."
    if status == 404:
        return f"the hub knows no '{repo}' or no such branch of it ({reason})."
    return f"the hub refused the upload to '{repo}' ({status}: {reason})."


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
