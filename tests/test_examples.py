"""Every example runs by the commands that its docstring gives, and finds what it promises."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
TOKENS = "26000"  # enough for sensitivities on one sequence each and a few batches of episodes
COULD_BE_CHANCE = 0.05  # nats by which a search so short may end above uniform on text that it has not seen


def commands(example: str) -> list[list[str]]:
    """The commands in an example's docstring: what is indented there, continued lines joined."""
    text = ast.get_docstring(ast.parse((EXAMPLES / example).read_text(encoding="utf-8"))) or ""
    lines = re.findall(r"^    (\S.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line.split(" [")[0]) for line in lines]  # without optional arguments


def run(arguments: list[str], folder: Path, tokens: str = TOKENS) -> str:
    """What a command of a docstring prints, with few tokens, from a folder where `examples/` is."""
    (folder / "examples").symlink_to(EXAMPLES)
    if arguments[0] == "python":
        ran = [sys.executable, *arguments[1:], "--tokens", tokens]
    else:
        assert arguments[0] == "autoprune"
        ran = [sys.executable, "-m", "autoprune", *arguments[1:], "--max-tokens", tokens]
    done = subprocess.run(ran, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(out: str) -> list[float]:
    """The losses that an example prints, in order."""
    return [float(loss) for loss in re.findall(r"loss (-?[0-9.]+)", out)]


def test_what_the_readme_lists_is_there() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+\.py)\]\(\1\) \| \S", readme, re.MULTILINE)) <= set(NAMES)


@pytest.mark.parametrize("example", NAMES)
def test_the_docstring_gives_the_command(example: str) -> None:
    assert ["python", f"examples/{example}"] in commands(example)
    for command in commands(example):
        assert command[0] in ("python", "autoprune")


@pytest.mark.slow
@pytest.mark.parametrize("example", ["purl.py", "my_reward.py"])
def test_searches_end_below_uniform(example: str, tmp_path: Path) -> None:
    dense, uniform, best = losses(run(["python", f"examples/{example}"], tmp_path))
    assert dense == 0
    assert best <= uniform + COULD_BE_CHANCE
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.slow
def test_amc_loads_what_it_exported(tmp_path: Path) -> None:
    out = run(["python", "examples/amc.py"], tmp_path)
    _, uniform, best = losses(out)
    assert best <= uniform + COULD_BE_CHANCE
    ((directory, parameters),) = re.findall(r"^(\S+/smaller): ([0-9,]+) parameters", out, re.MULTILINE)
    assert (tmp_path / directory / "model.safetensors").is_file()
    assert int(parameters.replace(",", "")) < 3_000_000  # of 3.8 M


@pytest.mark.slow
def test_the_reward_works_on_the_command_line(tmp_path: Path) -> None:
    (command,) = (command for command in commands("my_reward.py") if command[0] == "autoprune")
    assert "best" in run(command, tmp_path, "8000")


@pytest.mark.slow
def test_the_budget_is_a_csv(tmp_path: Path) -> None:
    out = run(["python", "examples/csv_budget.py", "table"], tmp_path)
    rows = (tmp_path / "table" / "latency.csv").read_text().splitlines()
    assert rows[0] == "unit,kept,cost"
    assert len(rows) == 1 + 8 * (7 + 9)  # blocks x levels of an attention and an MLP
    uniform, best = losses(out)
    assert best <= uniform + COULD_BE_CHANCE
    assert re.search(r"x dense by the table, [0-9.]+x timed", out)


@pytest.mark.slow
@pytest.mark.parametrize("example", ["train_with_sb3.py", "cleanrl_style.py"])
def test_training_outside_of_a_search(example: str, tmp_path: Path) -> None:
    uniform, learned = losses(run(["python", f"examples/{example}"], tmp_path))[-2:]
    assert learned <= uniform + COULD_BE_CHANCE


@pytest.mark.slow
def test_a_task_of_ones_own_is_searched(tmp_path: Path) -> None:
    dense, uniform, best = losses(run(["python", "examples/own_task.py"], tmp_path))
    assert dense <= best <= uniform + COULD_BE_CHANCE
