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
        given = arguments.index("--max-tokens") + 1
        ran = [sys.executable, "-m", "autoprune", *arguments[1:given], tokens, *arguments[given + 1 :]]
    done = subprocess.run(ran, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(out: str) -> list[float]:
    """The losses that an example prints, in order."""
    return [float(loss) for loss in re.findall(r"loss (-?[0-9.]+)", out)]


def test_the_readme_lists_them_in_order() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+\.py)\]\(\1\) \| \S", readme, re.MULTILINE) == NAMES
    assert [int(name.partition("_")[0]) for name in NAMES] == list(range(1, len(NAMES) + 1))


@pytest.mark.parametrize("example", NAMES)
def test_the_docstring_gives_the_command(example: str) -> None:
    assert ["python", f"examples/{example}"] in commands(example)
    for command in commands(example):
        assert command[0] in ("python", "autoprune")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "tokens"),
    [("06_own_reward.py", TOKENS), ("07_own_agent.py", "4000"), ("11_purl.py", TOKENS), ("12_amc.py", TOKENS)],
)
def test_searches_end_below_uniform(example: str, tokens: str, tmp_path: Path) -> None:
    dense, uniform, best = losses(run(["python", f"examples/{example}"], tmp_path, tokens))
    assert dense == 0
    assert best <= uniform + COULD_BE_CHANCE
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.slow
def test_the_first_search_loads_what_it_exported(tmp_path: Path) -> None:
    out = run(["python", "examples/01_first_search.py"], tmp_path, "8000")
    _, uniform, best = losses(out)
    assert best <= uniform + COULD_BE_CHANCE
    ((directory, parameters),) = re.findall(r"^(\S+/smaller): ([0-9,]+) parameters", out, re.MULTILINE)
    assert (tmp_path / directory / "model.safetensors").is_file()
    assert int(parameters.replace(",", "")) < 3_000_000  # of 3.8 M


@pytest.mark.slow
def test_a_network_of_images_is_loaded_by_its_own_loader(tmp_path: Path) -> None:
    out = run(["python", "examples/02_image_network.py"], tmp_path)
    dense, uniform, best = (float(percent) for percent in re.findall(r"accuracy ([0-9.]+)%", out))
    assert dense > best >= uniform
    assert re.search(r"^\S+/smaller: [0-9,]+ parameters, 10 classes", out, re.MULTILINE)


@pytest.mark.slow
def test_a_comparison_is_reported(tmp_path: Path) -> None:
    out = run(["python", "examples/03_compare_and_report.py", "--seeds", "1"], tmp_path, "8000")
    assert losses(out) == sorted(losses(out))
    assert len(losses(out)) == 3
    pages = re.findall(r"^report: (\S+)", out, re.MULTILINE)
    assert all("</html>" in (tmp_path / page).read_text(encoding="utf-8") for page in pages)
    assert len(pages) == 2


@pytest.mark.slow
def test_a_killed_search_goes_on_and_is_fine_tuned(tmp_path: Path) -> None:
    out = run(["python", "examples/04_resume_finetune_export.py", "run"], tmp_path)
    before, after = (int(lines) for lines in re.findall(r"(\d+) lines", out))
    assert 0 < before <= after
    found, tuned = (float(percent) for percent in re.findall(r"([0-9.]+)% (?:as found|in the end)", out))
    assert tuned > found
    assert (tmp_path / "run" / "smaller" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "finetuned" / "network" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_exporter_of_ones_own_writes_what_is_left(tmp_path: Path) -> None:
    out = run(["python", "examples/08_own_exporter.py"], tmp_path, "4000")
    ((numbers,),) = [re.findall(r"^half\.npz: ([0-9,]+) numbers in \d+ arrays", out, re.MULTILINE)]
    assert int(numbers.replace(",", "")) < 3_000_000  # of 3.8 M
    assert (tmp_path / "half.npz").is_file()


@pytest.mark.slow
def test_a_family_of_ones_own_is_checked_searched_and_exported(tmp_path: Path) -> None:
    out = run(["python", "examples/09_own_family.py"], tmp_path, "8000")
    dense, uniform, best = losses(out)
    assert dense == 0 < best <= uniform + COULD_BE_CHANCE
    assert len(re.findall(r"^layer \d: ", out, re.MULTILINE)) == 3


@pytest.mark.slow
def test_the_reward_works_on_the_command_line(tmp_path: Path) -> None:
    (command,) = (command for command in commands("06_own_reward.py") if command[0] == "autoprune")
    assert "best" in run(command, tmp_path, "8000")


@pytest.mark.slow
def test_the_budget_is_a_csv(tmp_path: Path) -> None:
    out = run(["python", "examples/05_csv_budget.py", "table"], tmp_path)
    rows = (tmp_path / "table" / "latency.csv").read_text().splitlines()
    assert rows[0] == "unit,kept,cost"
    assert len(rows) == 1 + 8 * (7 + 9)  # blocks x levels of an attention and an MLP
    uniform, best = losses(out)
    assert best <= uniform + COULD_BE_CHANCE
    assert re.search(r"x dense by the table, [0-9.]+x timed", out)


@pytest.mark.slow
@pytest.mark.parametrize("example", ["13_train_with_sb3.py", "14_cleanrl_style.py"])
def test_training_outside_of_a_search(example: str, tmp_path: Path) -> None:
    uniform, learned = losses(run(["python", f"examples/{example}"], tmp_path))[-2:]
    assert learned <= uniform + COULD_BE_CHANCE


@pytest.mark.slow
def test_a_task_of_ones_own_is_searched(tmp_path: Path) -> None:
    dense, uniform, best = losses(run(["python", "examples/10_own_task.py"], tmp_path))
    assert dense <= best <= uniform + COULD_BE_CHANCE
