"""Adapters that are saved apart are those that were merged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import UserError
from autoprune.recovery import adapter_files
from autoprune.training import TrainingSettings, adapters, settings_of, zeros


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # which peft reads
@pytest.mark.parametrize("patience", [None, 1])
def test_peft_loads_them(finished_run: Path, tmp_path: Path, patience: int | None) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    done = autoprune.finetune(
        run, epochs=2, lora=80, batch=32, at_once=0, lr=1e-2, save_adapters=True, patience=patience, progress=False
    )
    assert done.chosen == "trained"
    base = AutoModelForCausalLM.from_pretrained(run / "finetuned" / "base")
    merged = AutoModelForCausalLM.from_pretrained(done.path)
    tokens_NT = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (network(input_ids=tokens_NT).logits for network in (base, merged))
        adapted = peft.PeftModel.from_pretrained(base, run / "finetuned" / "adapters")(input_ids=tokens_NT).logits
    assert float((after - before).abs().max()) > 0.1
    torch.testing.assert_close(adapted, after, rtol=1e-3, atol=1e-4)
    config = json.loads((run / "finetuned" / "adapters" / "adapter_config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)
    assert config["rank_pattern"], "layers that are narrower than the rank have a smaller one"


def test_what_cannot_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="save_adapters=true saves what --lora trains"):
        settings_of({}, {"epochs": 1, "save_adapters": True})
    settings, layer = TrainingSettings(1, lora=2, save_adapters=True), nn.Linear(4, 4)
    network: Any = nn.Sequential(layer)
    adapter_files.check_adapters(settings, network)
    setattr(layer, zeros.MARK, True)
    with pytest.raises(UserError, match="bring the weights back"):
        adapter_files.check_adapters(settings, network)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'autoprune\[peft\]'"):
        adapter_files.check_adapters(settings, network)
    assert adapters.fit(network)
