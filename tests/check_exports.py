"""Run in a fresh process: load exported directories as a user would, and tell what was found.

    python check_exports.py ORDER < DIRECTORIES

ORDER: `before` or `after` imports autoprune before or after transformers; `without` does not import it. Answers each
line of the input, a directory with its reference beside it, by a line of JSON. The directory of a plain module has the
name of its network.
"""

import importlib.util
import json
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

(order,) = sys.argv[1:]
if order == "before":
    import autoprune
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageClassification  # noqa: E402

if order == "after":
    import autoprune  # noqa: F401

NEW_TOKENS = 8


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        try:
            found = check(Path(line.strip()))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)


@torch.no_grad()
def check(path: Path) -> dict[str, object]:
    reference = load_file(path.with_suffix(".safetensors"))
    if (path / "load_module.py").is_file():
        return of_module(path, reference)
    given = {name: tensor for name, tensor in reference.items() if name != "logits"}
    auto = AutoModelForImageClassification if "pixel_values" in given else AutoModelForCausalLM
    model, report = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    expected = reference["logits"]
    found: dict[str, object] = {
        "class": type(model).__name__,
        "parameters": model.num_parameters(),
        "lost": sorted(report["missing_keys"]) + sorted(report["unexpected_keys"]) + sorted(report["mismatched_keys"]),
        "logits": difference(model(**given).logits, expected),
        "pickled": difference(pickle.loads(pickle.dumps(model))(**given).logits, expected),
        "base": difference(
            AutoModel.from_pretrained(path, dtype=torch.float32)(**given)[0], model.base_model(**given)[0]
        ),
    }
    if auto is AutoModelForCausalLM:
        found["use_cache"] = model.generation_config.use_cache
        found["padded"] = padded(model, given["input_ids"], expected)
        found |= generated(model, given["input_ids"])
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        second = auto.from_pretrained(again, dtype=torch.float32, attn_implementation="eager")
        found["round trip, eager"] = difference(second(**given).logits, expected)
        found["same config"] = second.config.to_diff_dict() == model.config.to_diff_dict()
    return found


def of_module(path: Path, reference: dict[str, torch.Tensor]) -> dict[str, object]:
    """A plain module's weights in a dense module that has others."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.plain_networks import NETWORKS

    spec = importlib.util.spec_from_file_location("load_module", path / "load_module.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    network = loader.load(NETWORKS[path.name]())
    count = sum(parameter.numel() for parameter in network.parameters())
    return {"logits": difference(network(reference["pixel_values"]), reference["logits"]), "parameters": count}


def difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest logit."""
    return float((logits - expected).abs().max() / expected.abs().max())


def left_padded(tokens_BT: torch.Tensor, pads: int) -> dict[str, torch.Tensor]:
    """The first row as it is, the others shifted right behind `pads` padding tokens, losing their ends."""
    rows, mask = tokens_BT.clone(), torch.ones_like(tokens_BT)
    rows[1:, :pads], rows[1:, pads:] = 0, tokens_BT[1:, :-pads]
    mask[1:, :pads] = 0
    return {"input_ids": rows, "attention_mask": mask}


def padded(model: Any, tokens_BT: torch.Tensor, expected: torch.Tensor, pads: int = 3) -> float:
    batch = left_padded(tokens_BT, pads)
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    logits = model(**batch, position_ids=positions).logits
    return max(difference(logits[:1], expected[:1]), difference(logits[1:, pads:], expected[1:, :-pads]))


def generated(model: Any, tokens_BT: torch.Tensor) -> dict[str, object]:
    """Greedy tokens of a padded batch by each kind of cache, of its rows alone, and guessed ahead; those of a beam."""
    batch = left_padded(tokens_BT, 3)
    greedy = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "disable_compile": True}

    def tokens(inputs: dict[str, torch.Tensor], **cache: object) -> list[list[int]]:
        found: list[list[int]] = model.generate(**inputs, **greedy, **cache)[:, -NEW_TOKENS:].tolist()
        return found

    def rows(**how: object) -> list[list[int]]:
        alone = [row[None, mask.bool()] for row, mask in zip(*batch.values(), strict=True)]
        return [tokens({"input_ids": row, "attention_mask": torch.ones_like(row)}, **how)[0] for row in alone]

    found: dict[str, object] = {
        "default": tokens(batch),
        "no cache": tokens(batch, use_cache=False),
        "rows": rows(),
        "beam": tokens(batch, num_beams=2),
        "beam, no cache": tokens(batch, num_beams=2, use_cache=False),
    }
    if model.generation_config.use_cache is not False:
        found["static"] = tokens(batch, cache_implementation="static")
        found["in chunks"] = tokens(batch, cache_implementation="static", prefill_chunk_size=4)
        found["prompt lookup"] = rows(prompt_lookup_num_tokens=3)
        found["assisted"] = rows(assistant_model=model)
    return found


main()
