"""What README and guides show is so: their Python runs, their flags exist, their links lead somewhere."""

import os
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from autoprune import cli, registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"parts.md", "settings.md", "python.md"}
"""Pages of the reference, which are made when the site is built."""
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
QUICK = {"sequence_length": 32, "search_sequences": 8, "validation_sequences": 8}
LIMITED = {"max_evals": 20}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page: the name of the file that it is to be put into, or "", and the code."""
    return re.findall(r'```python(?: title="([\w.]+)")?\n(.*?)```', page.read_text(encoding="utf-8"), re.DOTALL)


def numbered() -> Iterator[tuple[str, Path, int]]:
    for page in PAGES:
        for number, (title, _) in enumerate(blocks(page)):
            yield f"{named(page)}-{title or number}", page, number


def commands() -> Iterator[tuple[str, str]]:
    """Every line that begins with `autoprune COMMAND`, in blocks that are indented or of the shell."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if re.match(r"(    )?(PYTHONPATH=\. )?autoprune [a-z]+( |$)", line) and line.split()[1] in COMMANDS:
                yield named(page), line.strip().removeprefix("PYTHONPATH=. ").removesuffix("\\")


PYTHON = list(numbered())


def quick(code: str) -> str:
    """The same with short sequences, and with few evaluations where there is a search."""
    settings = QUICK | (LIMITED if "autoprune.search(" in code and "max_evals" not in code else {})
    code = code.replace('data="text.txt"', f'data="text.txt", **{settings}')
    return code.replace('"data": "text.txt"', f'"data": "text.txt", **{settings}')


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("where", "page", "number"), PYTHON, ids=[where for where, _, _ in PYTHON])
def test_python_runs(
    where: str, page: Path, number: int, tiny_model: str, text_file: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for kind, parts in registry.PARTS.items():  # a page may add to them
        monkeypatch.setitem(registry.PARTS, kind, dict(parts))
    shutil.copytree(tiny_model, tmp_path / "path/to/model")
    shutil.copy(text_file, "text.txt")
    for title, code in blocks(page):  # what a reader of the page has put into files
        if title:
            Path(title).write_text(code, encoding="utf-8")
    title, code = blocks(page)[number]
    if '"smaller"' in code and "export" not in code:
        search = 'import autoprune\nautoprune.search(model="path/to/model", data="text.txt").export("smaller")'
        exec(quick(search), {})
    exec(compile(quick(code), where, "exec"), {"__name__": where, "__file__": str(tmp_path / title)})


@pytest.mark.parametrize(("where", "line"), sorted(set(commands())))
def test_commands_have_the_flags_that_are_written(where: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    command = COMMANDS[words[1]]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and Path(target).name not in GENERATED:
                assert os.path.exists(page.parent / target), f"{named(page)} leads to {target}"


def test_every_decision_is_in_the_index_newest_first() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(
        r"^- ([\d-]+): \[(.+)\]\((.+\.md)\)$", (folder / "index.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(name for _, _, name in listed) == sorted(path.name for path in folder.glob("2*.md"))
    assert [date for date, _, _ in listed] == sorted((date for date, _, _ in listed), reverse=True)
    for date, title, name in listed:
        assert (folder / name).read_text(encoding="utf-8").startswith(f"# {title}\n\n{date}\n\n"), name
        assert name.startswith(date)


def test_the_table_of_lines_of_code_is_what_the_scripts_have() -> None:
    counted = runpy.run_path(str(ROOT / "benchmarks" / "lines_of_code" / "count.py"))
    page = (ROOT / "docs" / "guides" / "python.md").read_text(encoding="utf-8")
    rows = [
        f"| {counted['JOBS'][job]} | {peer} | {theirs} | {ours} |" for job, peer, theirs, ours in counted["pairs"]()
    ]
    assert len(rows) == 3
    assert all(row in page for row in rows)
