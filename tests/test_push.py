"""`autoprune push`: what is uploaded, to where, and what is said where it cannot be."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.errors import UserError
from autoprune.exporters.directory import MANIFEST
from autoprune.exporting import export_run
from tests.conftest import Answer
from tests.hub_server import OID, TOKEN, Hub, serving

Cli = Callable[..., Answer]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def written(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pushed") / "smaller"
    export_run(finished_run, path)
    return path


@pytest.fixture
def out(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uploads to."""
    from huggingface_hub import constants

    with serving() as one:
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield one


# -- what is uploaded ------------------------------------------------------------------------------------------------


def test_the_export_and_nothing_else_is_uploaded(hub: Hub, out: Path) -> None:
    expected = {file.name: file.read_bytes() for file in out.iterdir()}
    (out / ".cache" / "huggingface").mkdir(parents=True)
    (out / ".cache" / "huggingface" / "x.lock").write_text("")
    for stray in ("journal.jsonl", "notes.txt", ".env", "optimizer.pt", "config.json.bak"):
        (out / stray).write_text("secret")
    (out / "checkpoint-1").mkdir()
    (out / "checkpoint-1" / "config.json").write_text("{}")
    pushed = autoprune.push(out, "me/smaller")
    assert hub.files("me/smaller") == expected
    assert {"README.md", "model.safetensors", "config.json", "policy.json", "tokenizer.json", MANIFEST} <= set(expected)
    assert pushed.files == sorted(expected)
    assert (pushed.repo, pushed.revision, pushed.commit) == ("me/smaller", "main", OID)
    assert pushed.size == sum(map(len, expected.values()))
    assert hub.visibility["me/smaller"] is None
    assert hub.messages[0].startswith("Pruned by the agent evolution of autoprune ")
    assert any("validate-yaml" in one for one in hub.asked)


def test_a_private_repository_a_branch_and_a_message(hub: Hub, out: Path, cli: Cli) -> None:
    answer = cli(
        "push", out, "me/smaller", "--private", "--revision", "half", "--message", "Half of it", "--json"
    )  # fmt: skip
    assert answer.status == 0, answer
    told = json.loads(answer.out)
    assert told["revision"] == "half"
    assert hub.visibility == {"me/smaller": "private"}
    assert hub.messages == ["Half of it"]
    assert set(hub.files("me/smaller", "half")) == set(told["files"])
    assert hub.files("me/smaller") == {}


def test_a_second_push_goes_to_the_same_repository(hub: Hub, out: Path, cli: Cli) -> None:
    assert cli("push", out, "smaller").status == 0  # of whoever owns the token
    answer = cli("push", out, "me/smaller")
    assert answer.status == 0, answer
    assert answer.out.startswith(f"pushed:  {hub.url}/me/smaller (")
    assert list(hub.repositories) == ["me/smaller"]


def test_large_files_go_to_their_store(out: Path, tmp_path: Path) -> None:
    """In a process of its own, as a user has it: HF_ENDPOINT and HF_TOKEN."""
    with serving() as hub:
        hub.large = (".safetensors",)
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        own |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, "-m", "autoprune", "push", str(out), "me/smaller"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
        assert done.returncode == 0, done.stderr
        assert hub.files("me/smaller")["model.safetensors"] == (out / "model.safetensors").read_bytes()
        assert any(one.startswith("PUT /store/") for one in hub.asked)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_without_a_token(
    hub: Hub, out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    refused("push", out, "me/smaller", seen=("no token", "hf auth login", "HF_TOKEN"))
    assert hub.asked == []


@pytest.mark.parametrize("repo", ["a/b/c", "a b", "-x/y", "x/", "x" * 200, "me/it.git", "../up", ""])
def test_wrong_names(hub: Hub, out: Path, refused: Refused, repo: str) -> None:
    refused("push", "--", out, repo, seen=("no name of a repository", "OWNER/NAME"))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("status", "said", "seen"),
    [
        (401, "Invalid credentials", ("does not know the token", "hf auth login")),
        (403, "You don't have the rights", ("may not write to 'me/smaller'", "You don't have the rights")),
        (429, "Too many", ("refused the upload", "429")),
        (500, "Oh", ("refused the upload", "500")),
        (409, "there already", ("is no hub",)),  # without the address that the hub gives with it
    ],
)  # fmt: skip
def test_the_hubs_own_refusals(
    hub: Hub, out: Path, refused: Refused, status: int, said: str, seen: tuple[str, ...]
) -> None:
    hub.refuses = status, said
    sentence = refused("push", out, "me/smaller", seen=seen)
    assert TOKEN not in sentence


def test_a_wrong_token(hub: Hub, out: Path) -> None:
    with pytest.raises(UserError, match="does not know the token"):
        autoprune.push(out, "me/smaller", token="hf_wrong")


def test_a_card_that_the_hub_refuses(hub: Hub, out: Path, refused: Refused) -> None:
    (out / "README.md").write_text("---\ntags: none\n---\n")
    refused("push", out, "me/smaller", seen=("refused the upload to 'me/smaller'",))
    assert hub.files("me/smaller") == {}


def test_without_a_network(out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused("push", out, "me/smaller", seen=("the hub at http://127.0.0.1:9 cannot be reached",))


def test_a_hub_that_never_answers(out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("autoprune.publishing.SECONDS", 0.2)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        refused("push", out, "me/smaller", seen=("cannot be reached", "timed out"))


def test_where_the_hub_is_switched_off(out: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused("push", out, "me/smaller", seen=("HF_HUB_OFFLINE",))


def test_what_is_no_export(hub: Hub, refused: Refused, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    refused("push", "empty", "me/x", seen=("'empty' is no export", "autoprune export RUN DIR"))
    refused("push", "file", "me/x", seen=("'file' is no directory",))
    refused("push", "nowhere", "me/x", seen=("'nowhere' is no directory",))
    refused("push", finished_run, "me/x", seen=("is a run", f"autoprune export {finished_run} DIR"))
    (tmp_path / "empty" / "config.json").write_text("{}")
    (tmp_path / "empty" / "policy.json").write_text("{}")
    refused("push", "empty", "me/x", seen=("earlier version", "export the run again"))
    assert hub.asked == []


def test_a_run_names_its_exports(out: Path, refused: Refused, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    shutil.copytree(out, tmp_path / "run" / "export")
    shutil.copytree(out, tmp_path / "run" / "finetuned" / "network")
    refused("push", "run", "me/x", seen=("is a run", "run/export", "run/finetuned/network"))


@pytest.mark.parametrize(
    "files", [["policy.json", "../secret"], ["policy.json", ".env"], ["policy.json", 3], "policy.json", ["a"], None]
)
def test_a_list_of_other_files(hub: Hub, out: Path, refused: Refused, files: Any) -> None:
    (out / MANIFEST).write_text(json.dumps({"format": "autoprune.export/1", "files": files}))
    refused("push", out, "me/x", seen=("list of files", "is damaged"))
    assert hub.asked == []


def test_a_link_is_not_followed(hub: Hub, out: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a key")
    (out / "tokenizer.json").unlink()
    refused("push", out, "me/x", seen=("tokenizer.json' is gone",))
    (out / "tokenizer.json").symlink_to(tmp_path / "secret")
    refused("push", out, "me/x", seen=("tokenizer.json' is gone or is a link",))
    assert hub.asked == []
