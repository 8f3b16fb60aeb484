"""Inputs of a person who has not read the manual: each gets a helpful sentence and status 2, or does what is meant."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune import exporting
from autoprune.amounts import parse_count, parse_seconds
from autoprune.errors import UserError
from autoprune.exporting import export_policy
from autoprune.files.near import near
from tests.conftest import Answer

Cli = Callable[..., Answer]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was exported."""
    assembly, policy = exporting.reopen(finished_run)
    return export_policy(assembly, policy, tmp_path_factory.mktemp("exported") / "smaller", "hf")


@pytest.fixture
def desk(tiny_model: str, text_file: str, finished_run: Path, exported: Path, tmp_path: Path) -> Path:
    """The present folder of a person: a model, a text, a run `half`, an export `smaller` and a file of settings."""
    shutil.copytree(tiny_model, tmp_path / "models" / "llama")
    shutil.copy(text_file, tmp_path / "text.txt")
    shutil.copytree(finished_run, tmp_path / "half")
    shutil.copytree(exported, tmp_path / "smaller")
    (tmp_path / "settings.yaml").write_text("seed: 1\nagent: random\nseed: 2\n")
    return tmp_path


MISTAKES: list[tuple[str, tuple[str, ...]]] = [
    # the wrong place
    ("search mymodel", ("'mymodel'", "Did you mean --model mymodel?")),
    ("search models/llama", ("Did you mean --model models/llama?",)),
    ("search text.txt", ("Did you mean --data text.txt?",)),
    ("search settings.yaml", ("Did you mean --config settings.yaml?",)),
    ("search half", ("'half' is a run", "autoprune resume half")),
    ("search 50%", ("Did you mean --budget 50%?",)),
    ("search seed", ("Did you mean --seed VALUE, or seed=VALUE?",)),
    ("compare --agents evolution ppo", ("'ppo'", "--agents with commas")),
    ("--model models/llama search", ("--model", "behind a command", "autoprune search --model")),
    ("models/llama", ("No such command 'models/llama'", "search --model models/llama")),
    ("export smaller half", ("'smaller' is no run, and 'half' is one", "the run comes first")),
    # another word
    ("prune --model models/llama", ("'prune'", "Did you mean 'search'?")),
    ("train half", ("Did you mean 'finetune'?",)),
    ("help search", ("'help'", "Did you mean --help?")),
    ("search --sparsity 0.5", ("--sparsity", "Did you mean --budget?")),
    ("search --dataset text.txt", ("Did you mean --data?",)),
    ("search --steps 100", ("Did you mean --max-evals?",)),
    ("search --agent Evolution", ("'Evolution'", "Did you mean 'evolution'?")),
    ("search --device gpu --model models/llama --data text.txt sequence_length=32", ("'gpu'", "Did you mean 'cuda'?")),
    ("list evolution", ("'evolution'", "autoprune list agents")),
    # mistyped
    ("search --modle x", ("--modle", "Did you mean --model?")),
    ("search -model x", ("-model", "Did you mean --model?")),
    ("search --max_evals 3", ("--max_evals", "Did you mean --max-evals?")),
    ("serch", ("'serch'", "Did you mean 'search'?")),
    ("resume hlaf", ("'hlaf' is no run", "Did you mean 'half'?")),
    ("search --config setings.yaml", ("'setings.yaml'", "Did you mean 'settings.yaml'?")),
    ("evaluate smalller", ("'smalller'", "Did you mean 'smaller'?")),
    # a thing of another kind
    ("search --model half", ("'half' is a run", "give the network that it searched")),
    ("search --data models/llama", ("holds a network, not data", "Did you mean --model models/llama?")),
    ("search --data half", ("'half' is a run, not data",)),
    ("search --config half", ("Is a directory", "Did you mean 'half/config.yaml'?")),
    ("search --config half/policy.json", ("'schema'", "half/policy.json")),
    ("search --out smaller", ("'smaller' holds a network", "another --out")),
    ("search --out text.txt", ("'text.txt'", "cannot be written", "another --out")),
    ("resume smaller", ("'smaller' is no run", "It holds a network")),
    ("init half", ("'half' is a folder", "half/settings.yaml")),
    # values
    ("search --budget 50", ("50", "50%")),
    ("search --seed yes", ("--seed", "'yes'", "integer")),
    ("search seed=yes", ("seed", "yes, no, on and off", "True")),
    ("search study_name=off", ("study_name", "in quotes", "False")),
    ("search agent_options.offspring=yes", ("agent_options.offspring", "'evolution'", "True")),
    ("search workload.batch=on", ("workload.batch", "True")),
    ("search levels=[yes,0.5]", ("levels", "True")),
    ("finetune half --epochs 1 weight=yes", ("weight", "yes, no, on and off")),
    ("search --max-time soon", ("'soon'", "10min")),
    ("search --max-tokens lots", ("'lots'", "400k")),
    ("search --model=", ("--model is empty",)),
    ("search --seed 1 --seed 2", ("--seed is given twice",)),
    ("search --json --json", ("--json is given twice",)),
    ("search seed=1 seed=2", ("seed is given two values, 1 and 2",)),
    ("search seed=1 seed=1", ("seed=1 is given twice",)),
    ("search --config settings.yaml", ("settings.yaml", "the key 'seed' is given twice, in lines 1 and 3")),
    # too little
    ("resume", ("Missing argument 'RUN'", "autoprune search")),
    ("export half", ("Missing argument 'DIR'",)),
    ("finetune half", ("epochs", "max_time")),
]  # fmt: skip
"""Arguments, and what the sentence says."""


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(("arguments", "seen"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_gets_a_sentence(refused: Refused, arguments: str, seen: tuple[str, ...]) -> None:
    before = sorted(Path().rglob("*"))
    refused(*arguments.split(), seen=seen)
    left = [path for path in sorted(Path().rglob("*")) if path != Path("runs")]
    assert left == before, "nothing is left behind"


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("command", ["show two", "export two out", "finetune two --epochs 0"])
def test_a_comparison_has_no_policy_of_its_own(refused: Refused, command: str) -> None:
    Path("two/a-s0").mkdir(parents=True)
    for name in ("two/config.yaml", "two/a-s0/config.yaml", "two/a-s0/policy.json"):
        Path(name).write_text("{}")
    refused(*command.split(), seen=("'two' is a comparison", "give one of its runs, as two/a-s0."))


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("when", ["before it ends", "with another word"])
def test_export_before_the_end(refused: Refused, when: str) -> None:
    Path("half/policy.json").unlink()
    if when == "before it ends":
        refused("export", "half", "out", seen=("'half' has no policy yet", "autoprune resume half"))
    else:
        refused("save", "half", "out", seen=("Did you mean 'export'?",))


def test_the_newest_run_is_named_where_one_is_missing(refused: Refused, finished_run: Path) -> None:
    shutil.copytree(finished_run, "runs/half")
    refused("show", seen=("Missing argument 'RUN'", "The newest run here is 'runs/half'"))


MEANT = [
    ("--max-evals 1e1", "max_evals: 10"),
    ("--max-tokens 0.4k", "max_tokens: 400"),
    ("--max-time 1h30m", "max_time: 5400.0"),
    ("max_time=10min", "max_time: 600.0"),
    ("--budget 50%", "params: 0.5"),
    ("--budget=0.5", "params: 0.5"),
    ("--data ./text.txt", "data: ./text.txt"),
    ("--model models/llama/", "model: models/llama/"),
]
"""Arguments, and what the run's settings say: what is meant is done."""


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(("arguments", "line"), MEANT)
def test_what_is_meant_is_done(cli: Cli, quick_arguments: list[str], arguments: str, line: str) -> None:
    given = {one.strip("-").partition("=")[0].replace("-", "_") for one in arguments.split()}
    rest = [one for one in quick_arguments if one.partition("=")[0] not in given]
    answer = cli("search", *rest, "--agent", "uniform", "--out", "run", *arguments.split())
    assert answer.status == 0, answer.err
    assert line in Path("run/config.yaml").read_text()


# -- paths and names of the hub --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("path", ["./models/lama", "models/lama", "modles/llama", "models/Llama", "models/llama "])
def test_a_mistyped_path_is_told_without_asking_the_hub(cli: Cli, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.networks import hub

    monkeypatch.setattr(hub, "is_reachable", lambda: pytest.fail("the hub was asked"))
    answer = cli("search", "--model", path)
    assert answer.status == 2
    assert "Did you mean 'models/llama'?" in answer.err


def test_a_path_is_told_before_torch_is_imported(desk: Path) -> None:
    code = (
        "import sys\nfrom autoprune.cli import main\n"
        "try: main(['search', '--model', 'models/lama'])\nexcept SystemExit as end: print(end.code)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=desk)
    assert done.stdout.split("\n")[:2] == ["2", "set()"]


def test_a_hub_name_fails_in_seconds_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked once, with a time limit, and not again and again."""
    import huggingface_hub.constants

    from autoprune.networks import hub, loading

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.is_reachable.cache_clear()
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"'some/model'.*hub.*local directory"):
        loading.load_model("some/model")
    assert time.monotonic() - begun < 10
    hub.is_reachable.cache_clear()


def test_near_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/half").mkdir(parents=True)
    assert near("runs/hlaf") == Path("runs/half")
    assert near("rusn/half") == Path("runs/half")
    assert near("rusn/hlaf") == Path("runs/half")
    assert near("entirely/else") is None
    assert near("/") is None or near("/") != Path("runs")


# -- amounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"), [("7", 7), ("400k", 400_000), ("1.5M", 1_500_000), ("1e6", 10**6), ("1,000", 1000), ("-5", -5)]
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("10min", 600), ("10 minutes", 600), ("1h30m", 5400), ("1d", 86400)],
)
def test_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "k", "0.5", "1e99", "nan", "inf", "4x", "1 000"])
def test_no_counts(text: str) -> None:
    with pytest.raises(UserError, match="whole number"):
        parse_count(text)


@pytest.mark.parametrize("text", ["", " ", "soon", "10x", "nan", "inf", "m10", "1:30"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(UserError, match="no time"):
        parse_seconds(text)
