"""Every mistake at the terminal gets one sentence with the value seen and the way out, and exit status 2."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from autoprune import exporting, journal
from autoprune.calibration.losses import KullbackLeibler
from autoprune.evaluation.readout import Readout
from autoprune.exporting import export_policy
from autoprune.journal import Journal
from tests.conftest import Replaceable

Refused = Callable[..., str]


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def model_copy(tiny_model: str, tmp_path: Path) -> Path:
    """A model directory of one's own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


# -- names -----------------------------------------------------------------------------------------------------------


def test_unknown_agent(refused: Refused) -> None:
    refused("search", "--agent", "evolutoin", seen=("'evolutoin'", "Did you mean 'evolution'?", "random"))


def test_unknown_agent_leaves_no_run(refused: Refused, tmp_path: Path) -> None:
    refused("search", "--agent", "evolutoin", seen=("'evolutoin'",))
    assert list(tmp_path.iterdir()) == []


def test_own_agent_that_does_not_import(refused: Refused) -> None:
    refused("search", "--agent", "no_such_module:Agent", seen=("'no_such_module:Agent'", "could not be loaded"))


def test_unknown_metric(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--budget", "parms=0.5", seen=("budget", "'parms'", "Did you mean 'params'?"))


def test_unknown_criterion(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--criterion", "obz", seen=("criterion", "'obz'", "Did you mean 'obs'?"))


def test_unknown_loss(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--loss", "mse", seen=("loss", "'mse'", "ce, error, kl"))


def test_unknown_space(refused: Refused) -> None:
    refused("search", "--space", "height", seen=("space", "'height'", "'width' or 'depth'"))


def test_unknown_setting(refused: Refused) -> None:
    refused("search", "sead=3", seen=("'sead'", "Did you mean 'seed'?"))


def test_unknown_agent_option(refused: Refused) -> None:
    refused("search", "agent_options.ofspring=3", seen=("'evolution'", "'ofspring'", "offspring"))


def test_agent_option_of_another_type(refused: Refused) -> None:
    refused("search", "agent_options.offspring=many", seen=("agent_options.offspring", "integer", "'many'"))


def test_unknown_exporter(refused: Refused, finished_run: Path) -> None:
    refused("export", finished_run, "out", "--to", "onyx", seen=("exporter", "'onyx'", "hf"))


def test_unknown_kind_of_parts(refused: Refused) -> None:
    refused("list", "agent", seen=("'agent'", "Did you mean 'agents'?"))


def test_unknown_command_and_option() -> None:
    for arguments in (["prune"], ["search", "--modle", "x"], ["search", "--batch", "many"], ["resume"]):
        done = subprocess.run(
            [sys.executable, "-m", "autoprune", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "Usage: autoprune" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


# -- models ----------------------------------------------------------------------------------------------------------


def test_no_model_directory(refused: Refused) -> None:
    refused("search", "--model", "./nowhere", seen=("'./nowhere'", "hub name"))


def test_model_is_a_file(refused: Refused, text_file: str) -> None:
    refused("search", "--model", text_file, seen=(text_file, "directory"))


def test_hub_name_offline(refused: Refused, text_file: str) -> None:
    refused("search", "--data", text_file, "--model", "some/model", seen=("'some/model'", "hub", "local directory"))


def test_directory_without_config(refused: Refused, tmp_path: Path) -> None:
    refused("search", "--model", tmp_path, seen=(str(tmp_path), "config.json"))


def test_directory_without_weights(refused: Refused, model_copy: Path) -> None:
    (model_copy / "model.safetensors").unlink()
    refused("search", "--model", model_copy, seen=(str(model_copy), "no weights", "*.safetensors"))


def test_pickled_weights_only(refused: Refused, model_copy: Path) -> None:
    (model_copy / "model.safetensors").unlink()
    (model_copy / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    refused("search", "--model", model_copy, seen=("pytorch_model.bin", "pickle", "safetensors"))


def test_truncated_weights(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    weights = model_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    refused("search", *quick_arguments, f"model={model_copy}", seen=(str(model_copy), "could not be loaded"))


def test_weights_of_another_shape(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    change(model_copy / "config.json", intermediate_size=80)
    refused("search", *quick_arguments, f"model={model_copy}", seen=(str(model_copy), "could not be loaded"))


def test_missing_weights(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    change(model_copy / "config.json", num_hidden_layers=5)
    refused("search", *quick_arguments, f"model={model_copy}", seen=(str(model_copy), "lacks", "model.layers.4"))


def test_corrupt_config(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    (model_copy / "config.json").write_text('{"model_type": "llama", ')
    refused("search", *quick_arguments, f"model={model_copy}", seen=(str(model_copy), "config.json"))


def test_unsupported_type(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    change(model_copy / "config.json", model_type="bert")
    refused(
        "search",
        *quick_arguments,
        f"model={model_copy}",
        seen=("'bert'", "llama, ", "search_spaces/bert.py", "registry.py"),
    )


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM", "T5ForConditionalGeneration"])
def test_networks_of_other_tasks(
    refused: Refused, model_copy: Path, quick_arguments: list[str], architecture: str
) -> None:
    change(model_copy / "config.json", model_type="bert", architectures=[architecture])
    seen = (str(model_copy), architecture, "neither a causal language model nor a classifier")
    refused("search", *quick_arguments, f"model={model_copy}", seen=seen)
    refused("evaluate", model_copy, seen=seen)


def test_type_unknown_to_transformers(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    change(model_copy / "config.json", model_type="lamma")
    refused("search", *quick_arguments, f"model={model_copy}", seen=("lamma",))


def test_tokenizer_of_a_larger_vocabulary(refused: Refused, model_copy: Path, text_file: str) -> None:
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(model_copy)
    config.vocab_size, config.bos_token_id = 50, None
    with torch.random.fork_rng():
        LlamaForCausalLM(config).save_pretrained(model_copy)
    refused("search", "--model", model_copy, "--data", text_file, "sequence_length=32", seen=("tokenizer", "50"))


def test_weights_that_are_nan(refused: Refused, model_copy: Path, quick_arguments: list[str]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(model_copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, model_copy / "model.safetensors", metadata={"format": "pt"})
    refused("search", *quick_arguments, f"model={model_copy}", "--out", "run", seen=("nan", "weights"))
    assert not Path("run").exists()


def test_losses_that_are_nan(refused: Refused, quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that overflows only when pruned: no policy can be named best."""
    import torch

    plain = Readout.measure

    def measure(self: Readout, hidden_BTD: torch.Tensor, references: Sequence[Any]) -> torch.Tensor:
        losses_KB = plain(self, hidden_BTD, references)
        return losses_KB * torch.nan if isinstance(self._losses[0], KullbackLeibler) else losses_KB

    monkeypatch.setattr(Readout, "measure", measure)
    refused("search", *quick_arguments, seen=("no policy with a finite loss",))


def test_sequences_longer_than_positions(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "sequence_length=129", seen=("sequence_length=129", "128 positions"))


def test_unusable_device(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--device", "gpu", seen=("'gpu'", "not usable"))


def test_unknown_dtype(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "dtype=float31", seen=("'float31'", "bfloat16"))


# -- text ------------------------------------------------------------------------------------------------------------


def test_missing_text(refused: Refused) -> None:
    refused("search", "--data", "nowhere.txt", seen=("'nowhere.txt'", "--data"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b" \n", "empty"), (b"\xff\xfe\x00", "no UTF-16"), (b"\xffabc", "no UTF-8"), (b"ELF\0\0\0", "zero byte")],
)
def test_unreadable_text(refused: Refused, tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    refused("search", "--data", "bad.txt", seen=("bad.txt", complaint))


def test_short_text(refused: Refused, tmp_path: Path, tiny_model: str) -> None:
    (tmp_path / "short.txt").write_text("too short to prune by")
    refused(
        "search", "--model", tiny_model, "--data", "short.txt", "sequence_length=32", seen=("0 sequences", "--data")
    )


# -- budgets and limits ----------------------------------------------------------------------------------------------


def test_impossible_budget(refused: Refused, quick_arguments: list[str]) -> None:
    arguments = [*quick_arguments, "levels=[1,0.5]", "--budget", "params=0.25"]
    refused(
        "search",
        *arguments,
        seen=("params=30,720 (25% of dense)", "smallest reachable value is 61,440", "50% of dense"),
    )


@pytest.mark.parametrize(
    "budget", ["params", "params=", "=0.5", "params=half", "params=nan", "params=--1", "params=1.2Q"]
)
def test_malformed_budget(refused: Refused, budget: str) -> None:
    refused("search", "--budget", budget, seen=(f"'{budget}'", "METRIC=VALUE"))


def test_two_budgets_of_one_metric(refused: Refused) -> None:
    refused("search", "--budget", "params=0.5", "--budget", "60%", seen=("params", "0.5 and 0.6"))


def test_budget_of_nothing(refused: Refused) -> None:
    refused("search", "--budget", "params=0", seen=("params=0 ", "above 0"))


def test_budget_that_is_no_number_in_yaml(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("budgets: {params: .nan}")
    refused("search", "--config", "c.yaml", seen=("c.yaml", "the number nan", "not finite"))


@pytest.mark.parametrize("limit", ["max-evals", "max-tokens", "max-time"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_limits_below_one(refused: Refused, limit: str, value: str) -> None:
    refused("search", f"--{limit}", value, seen=(limit.replace("-", "_"), "greater than 0", f"got {value}"))


@pytest.mark.parametrize(
    ("levels", "seen"), [("1", "1 levels"), ("1,0.5,-1", "-1.0"), ("few", "'few'"), ("1.0", "[1.0]")]
)
def test_levels_that_leave_nothing_to_choose(refused: Refused, levels: str, seen: str) -> None:
    refused("search", "--levels", levels, seen=(seen,))


def test_limits_too_small_for_one_score(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--max-tokens", "3", seen=("before it scored one policy", "limits"))


# -- configuration files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaml", "seen"),
    [
        ("agnet: random", ("'agnet'", "Did you mean 'agent'?", "c.yaml")),
        ("- agent\n- random", ("c.yaml", "mapping", "list")),
        ("agent: [random", ("c.yaml", "no YAML")),
        ("seed: eleven", ("seed", "integer", "'eleven'")),
        ("agent: 3", ("agent", "string", "got 3")),
        ("budgets: {params: lots}", ("'params=lots'", "METRIC=VALUE")),
    ],
)
def test_bad_configuration(refused: Refused, tmp_path: Path, yaml: str, seen: tuple[str, ...]) -> None:
    (tmp_path / "c.yaml").write_text(yaml)
    refused("search", "--config", "c.yaml", seen=seen)


def test_missing_configuration(refused: Refused) -> None:
    refused("search", "--config", "nowhere.yaml", seen=("'nowhere.yaml'", "cannot be read"))


def test_override_without_value(refused: Refused) -> None:
    refused("search", "seed", seen=("'seed'", "key=value"))


def test_override_inside_what_has_no_inside(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: somewhere")
    refused("search", "--config", "c.yaml", "model.name=x", seen=("'model.name'", "'somewhere'"))


# -- runs and policies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("resume",), ("show",), ("export", "--to", "policy")])
def test_folder_that_is_no_run(refused: Refused, tmp_path: Path, command: tuple[str, ...]) -> None:
    where = ["out"] if command[0] == "export" else []
    refused(command[0], tmp_path, *where, *command[1:], seen=(str(tmp_path), "no run", "config.yaml"))


def test_run_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    refused("show", tmp_path / "rnu", seen=("rnu", "there is nothing of that name"))


def test_form_that_is_unknown_is_told_before_a_network_is_loaded(refused: Refused, run_copy: Path) -> None:
    (run_copy / "policy.json").unlink()  # which would be told first
    refused("export", run_copy, "out", "--to", "onxn", seen=("'onxn'", "onnx"))


def test_run_without_policy(refused: Refused, run_copy: Path) -> None:
    (run_copy / "policy.json").unlink()
    for command in (("show", run_copy), ("export", run_copy, "out"), ("evaluate", run_copy)):
        refused(*command, seen=(str(run_copy), "no policy yet", "autoprune resume"))


def test_out_holds_a_run(refused: Refused, run_copy: Path, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--out", run_copy, seen=(str(run_copy), "holds a run already", "resume"))
    assert (run_copy / "policy.json").exists()


@pytest.mark.parametrize("out", ["file/run", "/proc/run"])
def test_out_that_cannot_be_written(refused: Refused, tmp_path: Path, quick_arguments: list[str], out: str) -> None:
    (tmp_path / "file").write_text("a file")
    refused("search", *quick_arguments, "--out", out, seen=(f"'{out}'", "cannot be written", "--out"))


def test_run_in_use(refused: Refused, run_copy: Path) -> None:
    code = (
        "import sys, pathlib; from autoprune import rundir\n"
        "with rundir.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    arguments = [sys.executable, "-c", code, str(run_copy)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused("resume", run_copy, seen=(str(run_copy), "in use", f"pid {holder.pid}"))
        holder.communicate("\n")


@pytest.mark.parametrize(("line", "text"), [(0, "{}"), (0, '"x"'), (2, "{"), (3, '{"levels": [1]}')])
def test_damaged_journal(refused: Refused, run_copy: Path, line: int, text: str) -> None:
    journal = run_copy / "journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[line] = text
    journal.write_text("\n".join(lines) + "\n")
    refused("resume", run_copy, seen=(f"line {line + 1}", str(journal), "damaged"))


def test_journal_of_another_text(refused: Refused, run_copy: Path, text_file: str, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(Path(text_file).read_text()[::-1])
    config = run_copy / "config.yaml"
    config.write_text(config.read_text().replace(text_file, str(other)))
    refused("resume", run_copy, seen=("journal", "another network, text", "earlier version", "new run"))


def test_policy_of_another_model(refused: Refused, run_copy: Path) -> None:
    policy = json.loads((run_copy / "policy.json").read_text())
    policy["provenance"]["model_hash"] = "0123456789abcdef"
    (run_copy / "policy.json").write_text(json.dumps(policy))
    refused("export", run_copy, "out", seen=("0123456789abcdef", "was made for the model"))


def test_policy_of_other_groups(refused: Refused, run_copy: Path) -> None:
    policy = json.loads((run_copy / "policy.json").read_text())
    unit = next(unit for unit in policy["units"] if unit["kind"] == "mlp" and 0 < unit["kept"] < unit["groups"])
    unit["kept_groups"] = f"0-{unit['kept'] - 1}"
    (run_copy / "policy.json").write_text(json.dumps(policy))
    refused("export", run_copy, "out", seen=("kept groups", "search again"))


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lambda text: text[:100], "no JSON"),
        (lambda text: text.replace("autoprune.policy/2", "autoprune.policy/9"), "schema"),
        (lambda text: text.replace('"kept"', '"kep"', 1), "kept"),
        (lambda text: text.replace('"kept_groups": "', '"kept_groups": "9-3,', 1), "9-3"),
    ],
)
def test_corrupt_policy(refused: Refused, run_copy: Path, damage: Callable[[str], str], seen: str) -> None:
    policy = run_copy / "policy.json"
    policy.write_text(damage(policy.read_text()))
    refused("show", run_copy, seen=("policy.json", seen))


def test_option_that_an_exporter_lacks(refused: Refused, finished_run: Path) -> None:
    refused("export", finished_run, "out", "--to", "policy", "--uniform", seen=("'policy'", "'uniform'"))


def test_option_of_an_exporter_given_twice(refused: Refused, finished_run: Path) -> None:
    refused("export", finished_run, "out", "uniform=true", "uniform=false", seen=("uniform", "two values"))
    refused("export", finished_run, "out", "--uniform", "uniform=false", seen=("uniform", "two values"))


def test_policy_file_over_something_else(refused: Refused, run_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    refused("export", run_copy, tmp_path / "notes.txt", "--to", "policy", seen=("notes.txt", "no policy file"))
    refused("export", run_copy, tmp_path / "pipe", "--to", "policy", seen=("pipe", "no regular file"))
    refused("export", run_copy, run_copy, "--to", "policy", seen=("policy.json", "a run's own policy"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_export_over_something_else(refused: Refused, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    refused("export", finished_run, "out", seen=("'out'",))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (("--sequence-length", "512"), "128 positions"),
        (("--data", "nowhere.txt"), "'nowhere.txt'"),
        (("--device", "gpu"), "gpu"),
    ],
)
def test_evaluate_what_does_not_fit(refused: Refused, tiny_model: str, options: tuple[str, ...], seen: str) -> None:
    length = [] if "--sequence-length" in options else ["--sequence-length", "32"]
    refused("evaluate", tiny_model, *length, *options, seen=(seen,))


def test_evaluate_nothing(refused: Refused, tmp_path: Path) -> None:
    refused("evaluate", tmp_path / "nowhere", seen=("nowhere", "no model directory"))
    refused("evaluate", tmp_path, seen=(str(tmp_path), "config.json"))


# -- disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full_at_the_start(refused: Refused, quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "a", encoding="utf-8") as full:
        monkeypatch.setattr(journal, "open_unlinked", lambda path, mode: full)
        refused("search", *quick_arguments, "--out", "run", seen=("journal.jsonl", "No space left", "resume"))


def test_disk_full_in_the_search(
    refused: Refused, cli: Callable[..., object], quick_arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was journalled before the disk was full is kept, and the run goes on once there is room."""
    append, calls = Journal.append, []

    def full(self: Journal, scores: object) -> None:
        calls.append(scores)
        if len(calls) > 3:
            self._file.close()
            self._file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
        append(self, scores)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        refused("search", *quick_arguments, "--out", "run", seen=("journal.jsonl", "No space left", "resume"))
    kept = Path("run/journal.jsonl").read_text()
    assert kept.count("\n") > 3
    assert cli("resume", "run").status == 0  # type: ignore[attr-defined]
    assert Path("run/journal.jsonl").read_text().startswith(kept)


def test_file_size_limit_on_the_level_store(quick_arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from autoprune.cli import main; main()"
    )
    environment = os.environ | {"AUTOPRUNE_CACHE": str(tmp_path / "cache")}
    arguments = [sys.executable, "-c", code, "search", *quick_arguments, "--out", str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be written" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "cache" / "levels").iterdir()) == []


def test_cache_that_cannot_be_written(
    refused: Refused, quick_arguments: list[str], text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", text_file)
    refused("search", *quick_arguments, seen=(text_file, "cannot be written", "AUTOPRUNE_CACHE"))


def test_damaged_level_store(
    refused: Refused,
    quick_arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., object],
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    cli("search", *quick_arguments, "--agent", "uniform")
    unit = next((tmp_path / "cache" / "levels").glob("*/1.mlp.safetensors"))
    unit.write_bytes(unit.read_bytes()[:-1])
    refused("search", *quick_arguments, seen=(str(unit.parent), "damaged", "delete"))


def change(config: Path, **values: object) -> None:
    """Set entries of a config.json."""
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


def test_a_model_that_is_pruned_already(finished_run: Path, tmp_path: Path, refused: Callable[..., str]) -> None:

    assembly, policy = exporting.reopen(finished_run)
    pruned = export_policy(assembly, policy, tmp_path / "pruned", "hf")
    refused("search", "--model", pruned, seen=("pruned already",))


# -- budgets of one's own --------------------------------------------------------------------------------------------


@pytest.fixture
def own_metric(refused: Refused, quick_arguments: list[str], tmp_path: Path) -> Refused:
    """Search with the metric `energy` of a file with this code, which must be refused."""

    def run(code: str, *, seen: tuple[str, ...]) -> str:
        (tmp_path / "my.py").write_text(code)
        return refused("search", *quick_arguments, "--budget", "my.py:energy=0.5", "--out", "run", seen=seen)

    return run


def test_own_metric_that_raises(own_metric: Refused, tmp_path: Path) -> None:
    code = "def per(kept):\n    return 1 / kept\n\ndef energy(unit, kept, workload):\n    return per(kept)\n"
    sentence = own_metric(code, seen=("'energy' (my.py, line 4)", "ZeroDivisionError at my.py, line 2: "))
    assert sentence.endswith("division by zero.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("float('nan')", "gives nan for unit 0.attention at 4 of 4 groups kept"),
        ("kept - 1", "gives -1 for unit 0.attention at 0 of 4 groups kept"),
        ("None", "gives None (a NoneType) for unit 0.attention"),
        ("numpy.ones(3)", "gives array([1., 1., 1.]) (a numpy.ndarray) for unit 0.attention"),
        ("100 - kept", "gives 96 for unit 0.attention at 4 of 4 groups kept, and 98 at 2: "),
        ("0", "gives 0 for the dense network"),
    ],
)
def test_own_metric_that_gives_no_cost(own_metric: Refused, value: str, seen: str) -> None:
    code = f"import numpy\n\ndef energy(unit, kept, workload):\n    return {value}\n"
    own_metric(code, seen=("the budget 'energy' (my.py, line 3) ", seen))


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("def energy(unit, kept): return kept", "'energy' (my.py, line 1) takes (unit, kept)"),
        ("energy = {'mlp': 3}", "'my.py:energy' is a dict"),
    ],
)
def test_own_metric_of_another_form(own_metric: Refused, code: str, seen: str) -> None:
    own_metric(code, seen=(seen, "(unit, level, workload) -> cost"))


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("\ndef energy(unit, kept, workload:\n", "SyntaxError at my.py, line 2: "),
        ("import torch\n\nenergy = torch.oops\n", "AttributeError at my.py, line 3: "),
        ("raise SystemExit(0)\n", "SystemExit at my.py, line 1: 0"),
        ("def enrgy(unit, kept, workload): return kept\n", "no 'energy' in my.py. Did you mean 'enrgy'?"),
    ],
)
def test_own_file_that_does_not_load(own_metric: Refused, code: str, seen: str) -> None:
    own_metric(code, seen=("the budget 'my.py:energy' could not be loaded: ", seen))


def test_own_file_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    refused("search", "--budget", "my.py:energy=0.5", seen=("'my.py:energy'", f"there is no file '{tmp_path}/my.py'"))
    refused("search", "--agent", "my.py:Agent", seen=("agent", "'my.py:Agent'", f"there is no file '{tmp_path}/my.py'"))


def test_table_that_is_not_there(refused: Refused, quick_arguments: list[str]) -> None:
    refused("search", *quick_arguments, "--budget", "no.csv=0.5", seen=("'no.csv'", "cannot be read", "No such file"))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("unit;kept;cost\nmlp;96;1", "line 1: the header 'unit;kept;cost' must name the column 'unit' once"),
        ("unit,kept,cost\nmlp,96,1\nmlp,48,slow", "line 3: cost is 'slow'"),
        ("unit,kept,cost\nmlp,96,-1", "line 2: cost is '-1'"),
        ("unit,kept,cost\nmlp,96.5,1", "line 2: kept is '96.5'"),
        ("unit,kept,cost\nmlp,96,1\nmlp,96,2", "line 3: 'mlp' at 96 groups kept was given before"),
    ],
)
def test_malformed_table(refused: Refused, quick_arguments: list[str], tmp_path: Path, text: str, seen: str) -> None:
    (tmp_path / "latency.csv").write_text(text)
    arguments = [*quick_arguments, "--budget", "latency.csv=0.5"]
    refused("search", *arguments, seen=(f"the table 'latency.csv', {seen}",))


def test_table_without_all_levels(refused: Refused, quick_arguments: list[str], tmp_path: Path) -> None:
    rows = ["attention,4,4", "attention,2,2", "attention,1,1", "mlp,96,4", "mlp,48,2", "0.mlp,72,3", "0.mlp,24,1"]
    (tmp_path / "latency.csv").write_text("\n".join(["unit,kept,cost", *rows]))
    arguments = [*quick_arguments, "--budget", "latency.csv=0.5"]
    seen = ("'latency.csv' lacks unit 1.mlp at 72, 24 of 96 groups kept", "2 other units", "rows for '1.mlp', or 'mlp'")
    refused("search", *arguments, seen=seen)


def test_table_that_costs_more_where_less_is_kept(refused: Refused, quick_arguments: list[str], tmp_path: Path) -> None:
    rows = [f"{kind},{kept},{100 - kept}" for kind in ("attention", "mlp") for kept in range(97)]
    (tmp_path / "latency.csv").write_text("\n".join(["unit,kept,cost", *rows]))
    seen = ("the budget 'latency.csv' gives 96 for unit 0.attention at 4 of 4 groups kept, and 98 at 2",)
    refused("search", *quick_arguments, "--budget", "latency.csv=0.5", seen=seen)


# -- rewards and environments ----------------------------------------------------------------------------------------

CHEAP = (
    "--agent",
    "ppo",
    "agent_options.tokens=32",
    "agent_options.race_tokens=32",
    Replaceable("agent_options.episodes=2"),
)


def rewarded(tmp_path: Path, body: str) -> tuple[str, ...]:
    """Arguments of a cheap search with a reward of one's own, on line 2 of my.py."""
    (tmp_path / "my.py").write_text(f"# mine\ndef paid(record):\n    {body}\n")
    return (*CHEAP, "--reward", "my.py:paid")


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("return float('nan')", ("returned nan at step 8 of 8", "must be finite")),
        ("return record.loss / 0", ("raised ZeroDivisionError at my.py, line 3",)),
        ("import numpy; return numpy.zeros(3)", ("must return one number; it returned ndarray of shape (3,)",)),
        ("return None", ("must return one number", "NoneType")),
        ("return '1.0'", ("must return one number", "str ('1.0')")),
        ("return 10**400", ("returned an integer of 1329 bits at step 8 of 8", "must be finite")),
        ("return -1e300", ("returned -1e+300", "up to 1e+30 in size")),
        ("return record.los", ("raised AttributeError at my.py, line 3", "los")),
    ],
)
def test_own_reward_that_is_no_number(
    refused: Refused, quick_arguments: list[str], tmp_path: Path, body: str, seen: tuple[str, ...]
) -> None:
    refused("search", *quick_arguments, *rewarded(tmp_path, body), seen=("'paid' (my.py, line 2)", *seen))


def test_own_reward_that_takes_no_record(refused: Refused, quick_arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("def paid():\n    return 1.0\n")
    seen = ("'paid' (my.py, line 1)", "takes 0 positional arguments but 1 was given")
    refused("search", *quick_arguments, *CHEAP, "--reward", "my.py:paid", seen=seen)


def test_own_reward_of_every_step_that_is_no_number_on_the_way(
    refused: Refused, quick_arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "my.py").write_text(
        "from autoprune.envs.rewards import every_step\n\n@every_step\ndef paid(record):\n"
        "    return float('nan') if record.step > 2 else record.kept\n"
    )
    seen = ("'paid' (my.py, line 3)", "returned nan at step 3 of 8", "costs {'params': ")
    refused("search", *quick_arguments, *CHEAP, "--reward", "my.py:paid", seen=seen)


@pytest.mark.parametrize(
    ("reward", "seen"),
    [
        ("my.py:pai", "no 'pai' in my.py. Did you mean 'paid'?"),
        ("other.py:paid", "there is no file '"),
        ("no_such_module:paid", "No module named 'no_such_module'"),
    ],
)
def test_own_reward_that_does_not_load(refused: Refused, tmp_path: Path, reward: str, seen: str) -> None:
    (tmp_path / "my.py").write_text("def paid(record):\n    return 1.0\n")
    refused("search", *CHEAP, "--reward", reward, "--out", "run", seen=(f"the reward '{reward}' could not be", seen))
    assert not (tmp_path / "run").exists()


def test_unknown_reward(refused: Refused) -> None:
    refused("search", *CHEAP, "--reward", "purrl", seen=("'purrl'", "Did you mean 'purl'?", "file.py:Object"))


def test_reward_for_an_agent_that_takes_none(refused: Refused) -> None:
    refused("search", "--reward", "amc", seen=("'evolution'", "'reward'", "offspring"))


def test_pretrained_that_is_not_there(refused: Refused, finished_run: Path) -> None:
    refused("search", *CHEAP, "--pretrained", finished_run, seen=(str(finished_run), "agent.safetensors", "RL agent"))


def test_pretrained_that_is_damaged_or_of_another_algorithm(
    refused: Refused, cli: Callable[..., object], quick_arguments: list[str], tmp_path: Path
) -> None:
    cli("search", *quick_arguments, *CHEAP, "--out", "learned")
    other = ("--agent", "sac", *CHEAP[2:], "--pretrained", "learned")
    refused("search", *quick_arguments, *other, seen=("learned/agent.safetensors", "is of PPO", "is of SAC"))
    narrower = (*CHEAP, "agent_options.net_arch=[8]", "--pretrained", "learned")
    refused("search", *quick_arguments, *narrower, seen=("does not fit", "net_arch"))
    (tmp_path / "learned" / "agent.safetensors").write_bytes(b"no weights")
    refused("search", *quick_arguments, *CHEAP, "--pretrained", "learned", seen=("agent.safetensors", "damaged"))


def test_callback_that_is_none(refused: Refused, quick_arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("class Watcher:\n    pass\n")
    arguments = (*quick_arguments, *CHEAP, "agent_options.callback=my.py:Watcher")
    refused("search", *arguments, seen=("'my.py:Watcher'", "BaseCallback"))


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("def _on_step(self):\n        return 1 / 0", ("'_on_step' (my.py, line 4)", "ZeroDivisionError", "line 5")),
        ("def _on_step(self):\n        raise ValueError('mine')", ("'_on_step' (my.py, line 4)", "ValueError", "mine")),
        ("def _on_rollout_start(self):\n        {}['a']\n\n    def _on_step(self):\n        return True",
         ("'_on_rollout_start' (my.py, line 4)", "KeyError at my.py, line 5")),
        ("def _on_step(self):\n        return True\n\n    def _on_training_end(self):\n        1 / 0",
         ("'_on_training_end' (my.py, line 7)", "ZeroDivisionError at my.py, line 8")),
        ("pass", ("the callback 'Watcher' raised TypeError", "_on_step")),
    ],
)  # fmt: skip
def test_callback_that_raises(
    refused: Refused, quick_arguments: list[str], tmp_path: Path, body: str, seen: tuple[str, ...]
) -> None:
    head = "from stable_baselines3.common.callbacks import BaseCallback\n\nclass Watcher(BaseCallback):\n    "
    (tmp_path / "my.py").write_text(head + body + "\n")
    refused("search", *quick_arguments, *CHEAP, "agent_options.callback=my.py:Watcher", seen=seen)


def test_settings_that_stable_baselines3_refuses(refused: Refused, quick_arguments: list[str]) -> None:
    unknown = (*CHEAP, "agent_options.options={n_stepz: 3}")
    refused("search", *quick_arguments, *unknown, seen=("PPO", "n_stepz", "options="))
    refused("search", *CHEAP, "agent_options.episodes=0", seen=("agent_options.episodes", "greater than 0", "0"))
