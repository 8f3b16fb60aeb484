"""What every command of the command line has: help that fits, examples, defaults, completion, -q and -v."""

import json
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from autoprune import cli, registry
from autoprune.config import DEFAULT_TOKENS, SearchConfig, load_config
from autoprune.shell import completion
from autoprune.shell.examples import EXAMPLES
from autoprune.shell.settings_file import by_panel
from autoprune.shell.volume import VOLUME
from tests.conftest import Answer

Cli = Callable[..., Answer]
GROUP = typer.main.get_command(cli.app)
COMMANDS = GROUP.commands  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def words(text: str) -> str:
    """The text of a help without frames and line breaks."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


# -- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_and_needs_no_colour(cli: Cli, command: str) -> None:
    answer = cli(*filter(None, [command]), "--help")
    assert answer.status == 0
    assert "\x1b" not in answer.out
    assert max(len(line) for line in answer.out.splitlines()) <= 80
    assert "…" not in answer.out, "nothing is cut"
    assert cli(*filter(None, [command]), "-h").out == answer.out


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1", "TERM": "xterm-256color"}, {"TERM": "dumb"}])
def test_help_on_a_terminal_without_colour(setting: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"} | {"COLUMNS": "80"}
    command = [sys.executable, "-m", "autoprune", "list", "--help"]
    subprocess.run(command, stdout=theirs, env=environment | setting, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown), "a colour"
    assert "Examples" in shown


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_types_of_values_only(cli: Cli, command: str) -> None:
    shown = cli(*filter(None, [command]), "--help").out
    assert [word for word in ("<bool>", "list[", "range>") if word in shown] == []


def test_paragraphs_of_help_are_wrapped_by_the_terminal_alone(cli: Cli) -> None:
    shown = [line.strip() for line in cli("compare", "--help").out.splitlines()]
    assert "agent. The same command continues an interrupted comparison, and agents and" in shown


def test_resume_shows_no_default_of_a_new_search(cli: Cli) -> None:
    shown = words(cli("resume", "--help").out)
    assert "default" not in shown
    assert "A setting that is not given stays as it was." in shown


def test_commands_have_whole_summaries(cli: Cli) -> None:
    shown = words(cli("--help").out)
    for name, command in COMMANDS.items():
        summary = " ".join(str(command.help).split("\n\n")[0].split())
        assert f"{name} {summary}" in shown
    assert "..." not in shown.replace("[ARGS]...", "")


def test_options_are_in_panels_by_what_they_are_for(cli: Cli) -> None:
    shown = cli("search", "--help").out
    panels = re.split(r"╭─ (.*?) ─+╮", shown)[1:]
    found = {title: set(re.findall(r"--[a-z-]+", text)) for title, text in zip(panels[::2], panels[1::2], strict=True)}
    for title, fields in by_panel().items():
        names = {name for name in fields if name not in ("agent_options", "reward_options", "workload")}
        flags = {"--budget" if name == "budgets" else f"--{name.replace('_', '-')}" for name in names}
        assert flags <= found[title]
    assert "Others" not in by_panel(), "a setting says in config.py what it is for"


def test_defaults_are_shown(cli: Cli) -> None:
    shown = words(cli("search", "--help").out)
    for name, field in SearchConfig.model_fields.items():
        default = field.default
        if isinstance(default, (int, float, str)) and not isinstance(default, bool):
            assert f"[default: {default}]" in shown, name
    assert "[default: params=0.5]" in shown
    assert f"without any limit it is {DEFAULT_TOKENS:,}" in shown
    assert DEFAULT_TOKENS == 400_000


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_examples_with_flags_that_exist(cli: Cli, command: str) -> None:
    assert EXAMPLES[command] in "\n".join(
        re.sub(r"^│ | *│$", "", line) for line in cli(*filter(None, [command]), "-h").out.splitlines()
    )
    lines = [line for line in EXAMPLES[command].replace("\\\n", "").splitlines() if not line.startswith("#")]
    for _, name, *arguments in map(shlex.split, lines):
        if name.startswith("-"):
            arguments, known = [name, *arguments], GROUP.params
        else:
            known = COMMANDS[name].params
        flags = {flag for parameter in known for flag in (*parameter.opts, *parameter.secondary_opts)}
        assert {one.split("=")[0] for one in arguments if one.startswith("-")} <= flags
    assert max(map(len, EXAMPLES[command].splitlines())) <= 76


def test_examples_are_of_commands_that_exist() -> None:
    assert set(EXAMPLES) - {""} == set(COMMANDS)


def test_version(cli: Cli) -> None:
    import autoprune

    assert cli("--version").out == f"autoprune {autoprune.__version__}\n"


# -- completion ------------------------------------------------------------------------------------------------------


def completed(line: str, folder: Path) -> list[str]:
    """What bash is offered behind a line."""
    given = {"_AUTOPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    code = "from autoprune.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_shell_completes_commands_options_names_and_runs(tmp_path: Path) -> None:
    for name in ("runs/half", "runs/other/searches", "somewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/half/config.yaml").touch()
    (tmp_path / "runs/other/compare.yaml").touch()
    assert completed("autoprune sea", tmp_path) == ["search"]
    assert "--max-tokens" in completed("autoprune search --max", tmp_path)
    assert completed("autoprune search --agent ", tmp_path) == registry.names("agents")
    assert completed("autoprune search --agent evop", tmp_path) == ["evopress"]
    assert completed("autoprune show ", tmp_path) == ["runs/half", "runs/other"]
    assert completed("autoprune export runs/h", tmp_path) == ["runs/half"]


def test_names_that_are_completed_are_those_of_the_registry() -> None:
    for setting, kind in completion.KINDS.items():
        completer = completion.completer(setting)
        assert completer is not None
        assert [name.rstrip("=") for name in completer("")] == registry.names(kind)
    assert completion.agents("ppo,t")[:1] == ["ppo,additive"]
    assert "ppo,ppo" not in completion.agents("ppo,")
    assert completion.exporters("") == registry.names("exporters")
    assert completion.kinds("") == list(registry.PARTS)


def test_completion_can_be_installed(cli: Cli) -> None:
    assert "--install-completion" in cli("--help").out
    assert "--show-completion" in cli("--help").out


# -- how much is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_quiet_says_the_result_alone(cli: Cli, quick_arguments: list[str], before: bool) -> None:
    arguments = ["search", *quick_arguments, "--agent", "uniform", "--out", "run"]
    answer = cli(*(["-q", *arguments] if before else [*arguments, "--quiet"]))
    assert answer.status == 0
    assert answer.err == ""
    assert "policy:  run/policy.json" in answer.out
    assert cli("-q", "search", "--agent", "nix").err.startswith("autoprune: error: "), "a mistake is always told"


@pytest.mark.parametrize("before", [True, False])
def test_verbose_shows_the_logger_at_debug(cli: Cli, quick_arguments: list[str], before: bool) -> None:
    arguments = ["search", *quick_arguments, "--agent", "uniform"]
    answer = cli(*(["-v", *arguments] if before else [*arguments, "--verbose"]))
    assert answer.status == 0
    assert "DEBUG autoprune: " in answer.err
    assert " evaluations, " in answer.err
    assert "DEBUG" not in answer.out
    logger = logging.getLogger("autoprune")
    again = cli("list", "agents")
    assert again.err == ""
    assert not any(handler is VOLUME._handler for handler in logger.handlers), "the next command is as always"


def test_quiet_and_verbose_are_opposites(refused: Callable[..., str]) -> None:
    refused("-q", "list", "-v", seen=("-q", "-v", "one of them"))


def test_a_search_names_its_run_first(cli: Cli, quick_arguments: list[str]) -> None:
    first = cli("search", *quick_arguments, "--agent", "uniform").err.splitlines()[0]
    named = re.fullmatch(r"autoprune: the run is '(runs/.*-uniform-s0)'", first)
    assert named
    assert Path(named[1], "policy.json").exists()
    assert "the run is" not in cli("resume", named[1]).err, "who resumes has named it"
    compared = cli("compare", *quick_arguments, "--agents", "uniform", "--seeds", "1", "--out", "two").err.splitlines()
    assert compared[0] == "autoprune: the comparison is in 'two'"
    assert not any("the run is" in line for line in compared)


def test_a_run_that_does_not_begin_is_not_named(cli: Cli) -> None:
    assert "the run is" not in cli("search", "--data", "nowhere.txt").err


# -- init ------------------------------------------------------------------------------------------------------------


def test_init_writes_every_setting_with_its_description(cli: Cli) -> None:
    answer = cli("init", "c.yaml", "--seed", "3", "--budget", "60%", "agent_options.offspring=8")
    assert answer.status == 0
    assert "autoprune search --config c.yaml" in answer.out
    text = Path("c.yaml").read_text()
    assert yaml.safe_load(text) == {"seed": 3, "budgets": {"params": 0.6}, "agent_options": {"offspring": 8}}
    prose = " ".join(text.replace("# ", "").split())
    for name, field in SearchConfig.model_fields.items():
        assert re.search(rf"^(# )?{name}:", text, re.MULTILINE), name
        description = str(field.description)
        assert f"{description[0].upper()}{description[1:]}." in prose
    assert load_config(Path("c.yaml")) == load_config(None, {"seed": 3, "budgets": "60%", "agent_options.offspring": 8})


def test_what_init_comments_out_is_the_default(cli: Cli) -> None:
    cli("init", "c.yaml")
    assert yaml.safe_load(Path("c.yaml").read_text()) is None
    names = "|".join(SearchConfig.model_fields)
    uncommented = re.sub(rf"^# (({names}):( |$))", r"\1", Path("c.yaml").read_text(), flags=re.MULTILINE)
    uncommented = re.sub(r"^#   (\w+:)", r"  \1", uncommented, flags=re.MULTILINE)
    Path("d.yaml").write_text(uncommented)
    assert load_config(Path("d.yaml")) == SearchConfig.model_validate({})


def test_a_search_runs_with_what_init_wrote(cli: Cli, quick_arguments: list[str]) -> None:
    assert cli("init", "c.yaml", *quick_arguments, "--agent", "uniform").status == 0
    assert cli("search", "--config", "c.yaml", "--out", "run").status == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["agent"] == "uniform"


def test_init_overwrites_nothing_unless_it_is_forced(cli: Cli, refused: Callable[..., str]) -> None:
    Path("settings.yaml").write_text("seed: 9\n")
    refused("init", "--seed", "1", seen=("'settings.yaml' exists", "--force"))
    assert Path("settings.yaml").read_text() == "seed: 9\n"
    assert cli("init", "--seed", "1", "--force").status == 0
    assert yaml.safe_load(Path("settings.yaml").read_text()) == {"seed": 1}


def test_no_name_of_a_file_becomes_a_setting(cli: Cli, refused: Callable[..., str]) -> None:
    refused("init", "a\nagent: ppo\n.yaml", seen=("line breaks",))
    answer = cli("init", "my settings.yaml")
    assert "--config 'my settings.yaml'" in answer.out, "the command can be pasted"


def test_init_replaces_no_device(refused: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    refused("init", str(tmp_path / "pipe.yaml"), "--force", seen=("no regular file",))


def test_init_refuses_what_no_search_would_take(refused: Callable[..., str]) -> None:
    refused("init", "c.yaml", "--agent", "evolutoin", seen=("Did you mean 'evolution'?",))
    refused("init", "c.yaml", "sead=1", seen=("Did you mean 'seed'?",))
    assert not Path("c.yaml").exists()


def test_init_without_a_terminal_asks_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: pytest.fail("a question"))
    assert json.loads(cli("init", "--json").out) == {"path": "settings.yaml", "settings": {}}


def test_init_asks_on_a_terminal_with_the_defaults_shown(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "autoprune", "init", "c.yaml"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        os.write(ours, b"tiny-cnn\n\nhalf\n60%\nevolutoin\nrandom\n\n7\n\n")
        shown = b""
        while b"search: " not in shown:
            shown += os.read(ours, 10_000)
    os.close(ours)
    assert process.returncode == 0
    told = shown.decode()
    assert "[evolution]" in told
    assert "[params=0.5]" in told
    assert "'half' is not of the form" in told
    assert "Did you mean 'evolution'?" in told
    chosen = {"model": "tiny-cnn", "budgets": {"params": 0.6}, "agent": "random", "seed": 7}
    assert yaml.safe_load((tmp_path / "c.yaml").read_text()) == chosen
