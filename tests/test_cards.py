"""The model card of every form of export: what hubs read, what people read, commands, and hostile names."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import autoprune
from autoprune.cards import markdown, repeat, rules
from autoprune.cards.metadata import CARD, base_model, license_files
from autoprune.config import load_config
from autoprune.policy import Policy
from tests import plain_networks
from tests.conftest import QUICK, Answer

Cli = Callable[..., Answer]
FAST: dict[str, Any] = QUICK | {"agent": "uniform"}

NASTY = [
    "---\nlicense: mit\n---\n# Mine",
    "<script>alert(1)</script>",
    "![x](https://evil.example/x.png) [y](javascript:alert(1))",
    "`` ` ``` `",
    "a|b\nc | d",
    "$(touch pwned); `touch pwned` \"'\\",
    "\x1b[31m\u202eevil",
    "{{ 7 * 7 }} {auto} {0}",
    "x" * 500,
    "- !!python/object/apply:os.system [ls]",
]
"""Texts that are markup, code or control sequences somewhere."""


def card_in(folder: Path) -> ModelCard:
    """The card of a directory, whose metadata keep the rules of hubs."""
    card: ModelCard = ModelCard.load(folder / CARD)
    assert rules.broken(data_of(card)) == []
    return card


def data_of(card: ModelCard) -> dict[str, Any]:
    found: Any = card.data
    return dict(found.to_dict())


def results_of(card: ModelCard) -> dict[str, float]:
    found: Any = card.data
    return {one.metric_type: one.metric_value for one in found.eval_results}


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    shutil.copytree(finished_run, folder / "run")
    from autoprune.exporting import export_run

    export_run(folder / "run", folder / "out")
    return folder


# -- what it says ----------------------------------------------------------------------------------------------------


def test_hubs_read_the_metadata(exported: Path) -> None:
    card = card_in(exported / "out")
    assert data_of(card)["library_name"] == "transformers"
    assert data_of(card)["pipeline_tag"] == "text-generation"
    assert {"pruned", "autoprune"} <= set(data_of(card)["tags"])
    validation = Policy.load(exported / "run" / "policy.json").losses["validation"]["best"]
    results = results_of(card)
    assert results["perplexity"] == pytest.approx(validation["perplexity"], rel=1e-5)
    assert results["cross-entropy"] == pytest.approx(validation["ce"], rel=1e-5)


def test_people_read_how_it_was_made_and_what_it_is_worth(exported: Path) -> None:
    policy = Policy.load(exported / "run" / "policy.json")
    text = card_in(exported / "out").text
    for row in ("dense", "uniform", "best"):
        assert f"| {row} | {round(policy.losses['validation'][row]['loss'], 4) + 0.0:.4f} |" in text
    spent = policy.provenance["spent"]
    for seen in (
        "| agent | `evolution` |", "| criterion | `obs` |", "| budget | `params=0.5` |", "| seed | `0` |",
        f"| spent | {spent['evals']:,} evaluations, {spent['tokens']:,} tokens |", "| time of the search | ",
        "| data | text.txt |", policy.provenance["created"],
        f"transformers {policy.provenance['versions']['transformers']}",
        "import autoprune", "AutoModelForCausalLM.from_pretrained",
    ):  # fmt: skip
        assert seen in text.replace("`", "") or seen in text, seen
    assert str(exported) not in text


def test_the_dense_networks_licence_and_language_are_carried_over(
    tiny_model: str, text_file: str, tmp_path: Path
) -> None:
    dense = tmp_path / "dense"
    shutil.copytree(tiny_model, dense)
    (dense / CARD).write_text(
        "---\nlicense: other\nlicense_name: my-own\nlicense_link: LICENSE.md\nlanguage: [en, de]\ntags: [dense]\n"
        "base_model: someone/something\ndatasets: [a/b]\n---\n# Dense\n"
    )
    (dense / "LICENSE.md").write_text("My terms.")
    (tmp_path / "secret").write_text("a key")
    (dense / "NOTICE").symlink_to(tmp_path / "secret")
    found = autoprune.search(model=dense, data=text_file, out=tmp_path / "run", **FAST)
    out = found.export(tmp_path / "out")
    data = data_of(card_in(out))
    assert (data["license"], data["license_name"], data["license_link"]) == ("other", "my-own", "LICENSE.md")
    assert data["language"] == ["en", "de"]
    assert data["base_model"] == "someone/something"
    assert "dense" not in data["tags"]
    assert (out / "LICENSE.md").read_text() == "My terms."
    assert not (out / "NOTICE").exists()


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ({"license": "apache-2.0"}, {"license": "apache-2.0"}),
        ({"license": ["mit"]}, {"license": "mit"}),
        ({"license": "Acme-1.0"}, {"license": "other", "license_name": "acme-1.0"}),
        ({"license": "evil: [x\n---\n"}, {"license": "other"}),
        ({"license": 7, "language": 3, "base_model": {"a": 1}}, {}),
        ({"license": "other", "license_link": "javascript:alert(1)"}, {"license": "other"}),
        ({"language": "en"}, {"language": "en"}),
        ({"language": ["en", "<b>", "zh-Hans"]}, {"language": ["en", "zh-Hans"]}),
        ({"base_model": "../../etc"}, {}),
        ({"base_model": ["a/b", "c d"]}, {"base_model": ["a/b"]}),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_left_out(head: dict[str, Any], kept: dict[str, Any]) -> None:
    assert rules.carried(head) == kept
    assert rules.broken(kept) == []


def test_a_folder_of_the_hubs_cache_names_its_model(tiny_model: str, tmp_path: Path) -> None:
    cached = tmp_path / "models--some--thing" / "snapshots" / "0123"
    shutil.copytree(tiny_model, cached)
    blob = tmp_path / "models--some--thing" / "blobs" / "1"
    blob.parent.mkdir()
    blob.write_text("Terms.")
    (cached / "LICENSE").symlink_to(blob)
    config = load_config(None, {"model": str(cached)})
    assert base_model(config) == "some/thing"
    assert [file.name for file in license_files(config)] == ["LICENSE"]
    assert base_model(load_config(None, {"model": "org/name"})) == "org/name"
    assert base_model(load_config(None, {"model": tiny_model})) is None


# -- hostile names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NASTY)
def test_no_name_becomes_markup(text: str) -> None:
    for made in (markdown.code(text), markdown.name(text), markdown.block(text)):
        assert set(_kinds(made)) <= {"paragraph", "text", "code_inline", "fence", "inline"}, made
    (row,) = markdown.table(("a",), [(markdown.code(text),)])[2:]
    assert "\n" not in row
    rendered = (
        MarkdownIt().enable("table").render("\n".join(markdown.table(("a", "b"), [(markdown.name(text), "end")])))
    )
    assert rendered.count("<td>") == 2
    assert "<script" not in rendered
    assert "<img" not in rendered


def _kinds(text: str) -> list[str]:
    tokens = MarkdownIt().parse(text)
    inner = [child.type for token in tokens for child in token.children or ()]
    return [kind.removesuffix("_open").removesuffix("_close") for kind in (*(token.type for token in tokens), *inner)]


@pytest.mark.parametrize("text", NASTY[:8])
def test_a_hostile_card_and_a_hostile_folder_break_nothing(
    text: str, tiny_model: str, text_file: str, tmp_path: Path
) -> None:
    dense = tmp_path / (text.replace("/", "_")[:100] or "x")
    shutil.copytree(tiny_model, dense)
    head = {"license": text, "language": [text], "base_model": text, "tags": [text], "license_name": text, text: text}
    (dense / CARD).write_text(f"---\n{yaml.safe_dump(head)}---\n{text}\n", encoding="utf-8")
    config = load_config(None, {"model": str(dense), "data": text_file, "agent_options": {text: text}, **QUICK})
    found = autoprune.search(model=dense, data=text_file, out=tmp_path / "run", **FAST)
    card = card_in(found.export(tmp_path / "out"))
    assert set(data_of(card)) <= {
        "license", "library_name", "pipeline_tag", "tags", "model-index"
    }  # fmt: skip
    assert data_of(card).get("license") in ("other", None)
    kinds = set(_kinds(card.text))
    assert not kinds & {"html_block", "html_inline", "image", "link"}, kinds
    assert [token.tag for token in MarkdownIt().parse(card.text) if token.type == "heading_open"].count("h1") == 1
    words = shlex.split(repeat.search_command(config))
    assert words[words.index("--model") + 1 if "--model" in words else 2].removeprefix("--model=") == dense.name


# -- the command that repeats it -------------------------------------------------------------------------------------


def commands_of(card: ModelCard) -> list[str]:
    (found,) = re.findall(r"```+sh\n(autoprune search.*?)\n```", card.text, re.DOTALL)
    return str(found).splitlines()


def test_the_commands_of_a_card_make_it_again(exported: Path, tiny_model: str, text_file: str, tmp_path: Path) -> None:
    """In a shell, in a folder that holds what they name."""
    for file in (tiny_model, text_file):
        (tmp_path / Path(file).name).symlink_to(file)
    commands = commands_of(card_in(exported / "out"))
    again = shell("\n".join(commands), tmp_path)
    assert again.returncode == 0, again.stderr
    first, second = (Policy.load(folder / "policy.json") for folder in (exported / "run", tmp_path / "run"))
    assert first.units == second.units
    assert first.losses["validation"] == second.losses["validation"]
    assert (exported / "out" / "model.safetensors").read_bytes() == (tmp_path / "pruned/model.safetensors").read_bytes()


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    function = f'autoprune() {{ {shlex.quote(sys.executable)} -m autoprune "$@"; }}\nset -e\n'
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        ["bash", "-c", function + script], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


SETTINGS: list[dict[str, Any]] = [
    {},
    {"budgets": {"params": 0.5, "macs": 3e9}, "agent": "random", "seed": 3, "levels": [1.0, 0.25, 0.0]},
    {"agent_options": {"a": "yes", "b": [1, 2], "c": {"d": None}, "e": "1e3", "f": "", "g": 'it\'s "so"\n'}},
    {"workload": {"phase": "decode", "batch": 4}, "max_time": 12.5, "dtype": "bfloat16", "space": "depth"},
    {"model": "-x", "data": "no such.txt", "task": "text", "max_tokens": 400_000},
    {"data": ["a.txt", "b c.jsonl"]},
    {"data": {"a.txt": 1.0, "b.jsonl": 2.0}, "of": "model"},
    {"model": "some/thing", "budgets": {"a=b.py:cost": 1e-07}, "data": "; rm -rf *"},
    {"storage": "postgresql://me:secret@host/db", "study_name": "mine", "workers": 3, "device_memory": 10**9},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_command_says_every_setting(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    from autoprune import study

    config = load_config(None, settings)
    command = repeat.search_command(config)
    assert "secret" not in command
    seen: list[Any] = []

    def start(given: Any, *_: Any, **__: Any) -> None:
        seen.append(given)
        raise SystemExit(0)

    monkeypatch.setattr(study, "start", start)
    cli(*shlex.split(command)[1:])
    assert seen[0].same_search(config.model_copy(update={"study_name": None}))


def test_paths_of_this_machine_are_in_no_command(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "agent.py").write_text("")
    (tmp_path / "deep" / "text.txt").write_text("")
    agent = f"{tmp_path}/deep/agent.py:Mine"
    config = load_config(None, {"agent": agent, "data": str(tmp_path / "deep" / "text.txt")})
    command = repeat.search_command(config)
    assert str(tmp_path) not in command
    assert "--agent agent.py:Mine" in command
    assert repeat.files(config) == ["text.txt", "agent.py"]


# -- other forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "library", "seen"),
    [
        (["--to", "hf", "--uniform"], "transformers", "stock `LlamaForCausalLM`"),
        (["--to", "onnx"], "onnx", "onnxruntime.InferenceSession"),
        (["--to", "policy"], "autoprune", "Policy.load"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:the export saves nothing")
def test_every_form_has_a_card(cli: Cli, finished_run: Path, options: list[str], library: str, seen: str) -> None:
    if "onnx" in options:
        pytest.importorskip("onnxscript")
    Path("out").mkdir()
    answer = cli("export", finished_run, "out", *options)
    assert answer.status == 0, answer
    card = card_in(Path("out"))
    assert data_of(card)["library_name"] == library
    assert seen in card.text
    assert commands_of(card)[1] == f"autoprune export run pruned {' '.join(options)}"


def test_a_readme_of_ones_own_stays(cli: Cli, finished_run: Path) -> None:
    Path("own").mkdir()
    Path("own/README.md").write_text("Mine.")
    assert cli("export", finished_run, "own", "--to", "policy").status == 0
    assert Path("own/README.md").read_text() == "Mine."


def test_a_plain_module_has_a_card(tmp_path: Path, text_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import tiny_searches

    name = next(iter(plain_networks.NETWORKS))
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    settings = tiny_searches.settings(name, tmp_path / "dense", text_file)
    found = autoprune.search(**settings, agent="uniform", out=tmp_path / "run")
    card = card_in(found.export(tmp_path / "out"))
    assert (data_of(card)["library_name"], data_of(card)["pipeline_tag"]) == ("pytorch", "image-classification")
    assert "load_module" in card.text
    assert set(results_of(card)) >= {"accuracy"}
    assert str(tmp_path) not in card.content


@pytest.mark.filterwarnings("ignore:.*made it worse.*:RuntimeWarning")
def test_a_fine_tuned_network_has_the_numbers_of_its_recovery(
    cli: Cli, finished_run: Path, tiny_model: str, text_file: str, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, "tuned")
    assert cli("finetune", "tuned", "--max-steps", "3", "lr=1e-4").status == 0
    result = json.loads(Path("tuned/finetuned/result.json").read_text())
    card = card_in(Path("tuned/finetuned/network"))
    named = {"dense": "dense", "uniform": "uniform", "before": "found", "refitted": "refitted", "after": "recovered"}
    for row, called in named.items():
        assert re.search(rf"^\| {called} \|.*{result[row]['ce']:.4f}", card.text, re.MULTILINE), row
    results = results_of(card)
    assert results["cross-entropy"] == pytest.approx(result["after"]["ce"], abs=1e-5)
    search, finetune = commands_of(card)
    assert finetune == "autoprune finetune run max_steps=3 lr=1e-4"
    again = tmp_path / "again"
    again.mkdir()
    for file in (tiny_model, text_file):
        (again / Path(file).name).symlink_to(file)
    done = shell(f"{search}\n{finetune}", again)
    assert done.returncode == 0, done.stderr
    weights = "finetuned/network/model.safetensors"
    assert Path("tuned", weights).read_bytes() == (again / "run" / weights).read_bytes()
