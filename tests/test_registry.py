"""Names, `package.module:Object`, `file.py:Object` and files: what loads, and the sentence when it does not."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoprune import registry
from autoprune.budgets.params import params
from autoprune.budgets.table import Table
from autoprune.errors import UserError

OWN = "your own is given as package.module:Object or file.py:Object"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def refusal(kind: str, name: str) -> str:
    with pytest.raises(UserError) as raised:
        registry.load(kind, name)
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


# -- what loads ------------------------------------------------------------------------------------------------------


def test_a_name_and_where_it_leads_give_the_same() -> None:
    assert registry.load("budgets", "params") is registry.load("budgets", "autoprune.budgets.params:params") is params


def test_a_file_is_taken_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "my.own.py").write_text("class Own: ...\n")
    (tmp_path / "link.py").symlink_to("a folder/my.own.py")
    written = ["a folder/my.own.py", "./a folder/my.own.py", f"{tmp_path}/a folder/my.own.py", "~/a folder/my.own.py"]
    first, *others = (registry.load("agents", f"{path}:Own") for path in [*written, "link.py"])
    assert all(other is first for other in others)


def test_a_file_is_run_once_for_all_its_objects(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("with open('runs', 'a') as file: file.write('x')\nA, B = object(), object()\n")
    for name in ("A", "B", "A"):
        registry.load("agents", f"own.py:{name}")
    assert (tmp_path / "runs").read_text() == "x"


def test_files_of_one_name_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(f"part = {folder!r}\n")
    assert [registry.load("agents", f"{folder}/own.py:part") for folder in ("a", "b")] == ["a", "b"]


def test_dataclasses_of_a_file_work_and_are_pickled(tmp_path: Path) -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    (tmp_path / "own.py").write_text(f"{head}@dataclass\nclass Own:\n    x: int = 1\n")
    own = registry.load("agents", "own.py:Own")
    assert pickle.loads(pickle.dumps(own(3))) == own(3)


def test_a_file_that_was_mended_loads(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("part = 1 / 0\n")
    refusal("agents", "own.py:part")
    (tmp_path / "own.py").write_text("part = 'mended'\n")
    assert registry.load("agents", "own.py:part") == "mended"


def test_a_table_is_read_and_only_as_a_budget(tmp_path: Path) -> None:
    for name in ("latency.csv", "LATENCY.CSV"):
        (tmp_path / name).write_text("unit,kept,cost\nmlp,1,2\n")
        assert registry.load("budgets", name) == Table(Path(name), {"mlp": {1: 2.0}})
    assert OWN in refusal("agents", "latency.csv")


def test_rewards_are_a_kind() -> None:
    assert {"amc", "purl", "loss", "rewarded-meta"} <= set(registry.names("rewards"))
    assert registry.singular("rewards") == "reward"


def test_the_registry_is_light() -> None:
    code = "import autoprune.registry, sys; print(*{'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == ""


# -- what does not ---------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_near_misses_and_all_forms() -> None:
    message = refusal("budgets", "parms")
    known = ", ".join(registry.names("budgets"))
    assert message.startswith(f"no budget is called 'parms'. Did you mean 'params'? Known: {known}; ")
    assert f"{OWN} or FILE.csv." in message
    assert f"{OWN}." in refusal("agents", "evolutoin")


@pytest.mark.parametrize("name", ["own.py", "own.py:", ":Own", ":", ""])
def test_a_form_without_a_file_or_an_object_is_no_name(name: str) -> None:
    message = refusal("budgets", name)
    assert f"no budget is called '{name}'" in message
    assert OWN in message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    for name in ("own.py", "folder.py", "~no_such_user/own.py"):
        message = refusal("agents", f"{name}:Own")
        assert message == f"the agent '{name}:Own' could not be loaded: there is no file '{tmp_path}/{name}'."


BROKEN = {
    "def f(:\n": "SyntaxError at {file}, line 1: invalid syntax",
    "x = 1\n\nraise KeyError('x')\n": "KeyError at {file}, line 3: 'x'",
    "\nenergy = oops\n": "NameError at {file}, line 2: name 'oops' is not defined",
    "import not_installed\n": "ModuleNotFoundError at {file}, line 1: No module named 'not_installed'",
    "import sys\nsys.exit('bye')\n": "SystemExit at {file}, line 2: bye",
    "import json\n\njson.loads('no')\n": "JSONDecodeError at {file}, line 3: Expecting value",
    "import failing_helper\n": "KeyError at failing_helper.py, line 1: 'x'",
    "import broken_helper\n": "SyntaxError at broken_helper.py, line 2: ",
    "raise ValueError('of\\ntwo lines.')\n": "ValueError at {file}, line 1: of two lines",
    "from autoprune.errors import UserError\nraise UserError('no')\n": "UserError at {file}, line 2: no",
}


@pytest.mark.parametrize("form", ["file", "module"])
@pytest.mark.parametrize("code", BROKEN, ids=[seen.split(" ")[0] for seen in BROKEN.values()])
def test_code_that_does_not_run(tmp_path: Path, form: str, code: str) -> None:
    module = f"broken_{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(code)
    (tmp_path / "failing_helper.py").write_text("raise KeyError('x')\n")
    (tmp_path / "broken_helper.py").write_text("\nx = = 1\n")
    name = f"{module}.py:energy" if form == "file" else f"{module}:energy"
    message = refusal("budgets", name)
    assert message.startswith(f"the budget '{name}' could not be loaded: {BROKEN[code].format(file=f'{module}.py')}")


def test_source_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_bytes(b"x = '\xff'\n")
    assert "could not be loaded: SyntaxError at own.py, line" in refusal("agents", "own.py:Own")


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("no_such_module:Agent", "ModuleNotFoundError: No module named 'no_such_module'."),
        (".relative:Agent", "TypeError: "),
        ("json.no_such_part:Agent", "ModuleNotFoundError: No module named 'json.no_such_part'."),
    ],
)
def test_a_module_that_is_not_there_has_no_place(name: str, seen: str) -> None:
    assert refusal("agents", name).startswith(f"the agent '{name}' could not be loaded: {seen}")


def test_an_object_that_is_not_there_gets_near_misses(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def energy(): ...\ndef _energi(): ...\n")
    failed = "the budget 'own.py:energi' could not be loaded"
    assert refusal("budgets", "own.py:energi") == f"{failed}: there is no 'energi' in own.py. Did you mean 'energy'?"
    assert refusal("budgets", "own.py:zzz").endswith("there is no 'zzz' in own.py.")
    assert refusal("agents", "json:load_s").endswith("there is no 'load_s' in json. Did you mean 'loads'?")


def test_a_part_under_a_name_says_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, Any] = {"lost": "autoprune.lost:Lost"}
    monkeypatch.setitem(registry.PARTS, "agents", parts)
    message = refusal("agents", "lost")
    assert "the agent 'lost' could not be loaded from 'autoprune.lost:Lost': ModuleNotFoundError: " in message
