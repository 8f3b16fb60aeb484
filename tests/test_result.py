"""The result object: how it is shown, the network in memory, frames and plots, and loading it from a run."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import autoprune
from autoprune.result import SearchResult
from tests import tiny_searches


@pytest.fixture(scope="module")
def result(finished_run: Path) -> SearchResult:
    found = autoprune.load(finished_run)
    assert isinstance(found, SearchResult)
    return found


def test_a_result_is_loaded_from_its_run(quick: dict[str, Any], tmp_path: Path) -> None:
    searched = autoprune.search(**quick, out=tmp_path / "run")
    loaded = autoprune.load(str(searched.path))
    assert loaded == searched, "everything that is compared is in the run"
    assert repr(loaded) == repr(searched)
    assert loaded._repr_html_() == searched._repr_html_()


def test_what_cannot_be_loaded_is_told(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(autoprune.UserError, match="is no run"):
        autoprune.load(tmp_path)
    own = shutil.copytree(finished_run, tmp_path / "run")
    record = json.loads((own / "result.json").read_text(encoding="utf-8"))
    (own / "result.json").write_text(json.dumps(record | {"spent": {"eggs": 3}}), encoding="utf-8")
    with pytest.raises(autoprune.UserError, match="result"):
        autoprune.load(own)
    (own / "policy.json").unlink()
    with pytest.raises(autoprune.UserError, match="no policy yet"):
        autoprune.load(own)


def test_the_text_fits_a_screen(result: SearchResult) -> None:
    lines = repr(result).splitlines()
    assert len(lines) < 24
    assert max(map(len, lines[:-1])) <= 80, "the last line is the run's path"
    assert [line.split()[0] for line in lines[2:5]] == ["dense", "uniform", "best"]
    assert f"{result.loss:.4f}" in lines[4]
    assert any(line.strip().startswith("budget: params") for line in lines)
    assert any(line.strip().startswith("mlp") and set(line) & set("▁▂▃▄▅▆▇█·") for line in lines)
    assert str(result.path) in lines[-1]


def test_the_html_is_small_and_escaped_and_has_no_script(finished_run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(finished_run, tmp_path / "<img src=x onerror=alert(1)>")
    html = autoprune.load(own)._repr_html_()
    assert "<img" not in html
    assert "&lt;img" in html
    assert "<script" not in html
    assert html.count("<svg") == 2, "attention and mlp"
    assert len(html) < 30_000
    rules = html.partition("<style>")[2].partition("</style>")[0]
    assert all(rule.startswith((".autoprune", ".c")) for rule in rules.split("}") if rule), "nothing else is changed"


def test_the_network_in_memory_is_the_exported_one(result: SearchResult, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel

    network = result.model()
    assert isinstance(network, PreTrainedModel)
    exported = AutoModelForCausalLM.from_pretrained(result.export(tmp_path / "export"))
    tokens_NT = torch.randint(0, 257, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(tokens_NT).logits
        assert torch.equal(logits, exported(tokens_NT).logits)
        stock = result.model(uniform=True)
        assert type(stock) is LlamaForCausalLM
        assert torch.allclose(stock(tokens_NT).logits, logits, atol=1e-5)
    assert network.num_parameters() == result.table[-1].params
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.generation_config.to_dict() == exported.generation_config.to_dict()
    for parameter in network.parameters():  # the next one is a copy of its own
        parameter.data.zero_()
    with torch.no_grad():
        assert torch.equal(result.model()(tokens_NT).logits, logits)
    assert result.tokenizer("abc")["input_ids"]


def test_a_form_that_is_only_of_files_is_told(result: SearchResult) -> None:
    with pytest.raises(autoprune.UserError, match="only writes files: use export"):
        result.model(to="policy")
    with pytest.raises(autoprune.UserError, match="Hugging Face model"):
        result.model(to="module")


def test_a_plain_module_in_memory_is_the_exported_one(text_file: str, tmp_path: Path) -> None:
    from autoprune.exporters.load_module import load
    from tests import image_families

    settings = tiny_searches.settings("plain-basic", tmp_path / "net", text_file)
    result = autoprune.search(**settings, agent="random", max_evals=4, out=tmp_path / "run")
    network = result.model()
    loaded = load(image_families.tiny_model("plain-basic"), result.export(tmp_path / "export"))
    images_NCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(images_NCHW), loaded(images_NCHW), atol=1e-6)


def test_frames_have_units_and_costs(result: SearchResult) -> None:
    frame = result.to_frame()
    assert list(frame.index) == [unit.name for unit in result.policy.units]
    assert frame["params"].sum() == pytest.approx(result.policy.costs["params"].policy)
    assert frame["params_dense"].sum() == pytest.approx(result.policy.costs["params"].dense)
    assert list(frame["share"]) == [unit.density for unit in result.policy.units]
    history = result.history_frame()
    assert list(history.columns) == ["tokens", "seconds", "loss"]
    assert len(history) == len(result.history)


def test_a_plot_has_a_bar_for_every_unit(result: SearchResult) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = result.plot()
    assert len(axes.patches) == len(result.policy.units)
    assert result.plot(axes) is axes
    pyplot.close("all")


@pytest.mark.parametrize(("package", "use"), [("pandas", SearchResult.to_frame), ("matplotlib", SearchResult.plot)])
def test_a_missing_package_is_told(
    package: str, use: Any, result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(autoprune.UserError, match=rf"{package}: pip install 'autoprune\[notebook\]'"):
        use(result)


def test_a_comparison_is_shown_and_loaded(quick: dict[str, Any], tmp_path: Path) -> None:
    settings = {key: value for key, value in quick.items() if key not in ("agent", "seed")}
    compared = autoprune.compare("uniform,random", 2, **settings, out=tmp_path / "c")
    lines = repr(compared).splitlines()
    assert lines[0] == "Comparison(4 of 4 searches)"
    assert max(map(len, lines[:-1])) <= 80
    assert {line.split()[0] for line in lines[2:5]} == {"random", "uniform", "dense"}
    assert "<script" not in compared._repr_html_()
    assert compared._repr_html_().count("<svg") == 1
    assert list(compared.to_frame().index) == [row["agent"] for row in compared.table]
    assert repr(autoprune.load(compared.path)) == repr(compared)


def test_a_fine_tuning_is_shown(finished_run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(finished_run, tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing made it better
        recovered = autoprune.finetune(own, 0)
    lines = repr(recovered).splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["dense", "uniform", "found", "refitted"]
    assert [row.split()[0] for row in repr(autoprune.load(own)).splitlines() if row.startswith("  recovered ")]
    assert max(map(len, lines[:-1])) <= 80
    assert str(recovered.path) in lines[-1]
    assert "<table" in recovered._repr_html_()


def test_completion_shows_public_names_only(result: SearchResult) -> None:
    code = (
        "import autoprune, autoprune.api\n"
        "from IPython.core.completer import IPCompleter\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.user_ns['autoprune'] = autoprune\n"
        "shell.Completer.use_jedi = False\n"
        "print(*shell.complete('autoprune.')[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f".{name}" for name in sorted(autoprune.__all__)]
    assert [name for name in dir(autoprune) if not name.startswith("_")] == autoprune.__all__
    public = {name for name in dir(result) if not name.startswith("_")}
    assert public == {
        "assembly", "export", "front", "history", "history_frame", "incumbents", "interrupted", "loss", "model", "path",
        "plot", "policy", "recovered", "space", "spent", "table", "to_frame", "tokenizer",
    }  # fmt: skip


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_result_can_be_copied_and_sent_to_another_process(again: Any, quick: dict[str, Any], tmp_path: Path) -> None:
    result = autoprune.search(**quick, out=tmp_path / "run")
    other = again(result)
    assert other == result
    tokens = torch.arange(8)[None]
    assert torch.equal(other.model()(tokens).logits, result.model()(tokens).logits)
