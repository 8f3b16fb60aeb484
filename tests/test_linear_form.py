"""The form `linear`: a constant or a linear map in the place of a dropped attention or MLP."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import autoprune
from autoprune import exporting
from autoprune.assembly import Assembly, assemble
from autoprune.budgets.latency import dense_afterwards, place
from autoprune.calibration.sub_blocks import SubBlock, Sums, collect_sub_blocks
from autoprune.config import load_config
from autoprune.cutting.replacing import Constant, LinearMap, normed
from autoprune.errors import UserError
from autoprune.exporting import network_in_memory
from autoprune.level import Level, form_of
from autoprune.levels.linear import linear_level
from autoprune.provenance import make_policy
from autoprune.refits import refit
from autoprune.training import adapters
from autoprune.training.candidate import copied
from autoprune.training.refit import _step
from autoprune.validation import total_macs, total_params
from tests.conftest import Answer, save_byte_tokenizer

HIDDEN = 64
KINDS = ("full", "rank", "constant")


@pytest.fixture(scope="module")
def settings(quick: dict[str, Any]) -> dict[str, Any]:
    """Of a quick search with this form."""
    return quick | {"forms": "groups,linear", "budgets": {"macs": 0.4}}  # with params some levels are left out


@pytest.fixture(scope="module")
def linear(settings: dict[str, Any]) -> Assembly:
    """A Llama whose units have levels of both forms."""
    return assemble(load_config(overrides=settings))


def at(assembly: Assembly, *kinds: str) -> tuple[int, ...]:
    """The policy with these kinds of maps, one unit after another; `nothing`, and `dense` for the others."""
    levels = []
    for u, unit in enumerate(assembly.space.units):
        kind = kinds[u] if u < len(kinds) else "dense"
        named = {"dense": 0, "nothing": len(unit.levels) - 1}
        maps = {str(level.option("map")): i for i, level in enumerate(unit.levels) if level.form == "linear"}
        levels.append((named | maps)[kind])
    return tuple(levels)


# -- the mathematics -------------------------------------------------------------------------------------------------


def data(rank: int, noise: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs, the first of which are much larger than the others, and a map of them of that rank with a constant."""
    draw = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(400, 8, generator=draw).double() * torch.logspace(2, -1, 8, dtype=torch.float64) + 3
    weight_DO = torch.randn(8, rank, generator=draw).double() @ torch.randn(rank, 6, generator=draw).double()
    return x_ND, x_ND @ weight_DO + 5 + noise * torch.randn(400, 6, generator=draw).double()


def mapped(tensors: dict[str, Tensor], x_ND: Tensor) -> Tensor:
    """What a map makes of its inputs."""
    if "up" not in tensors:
        return tensors["bias"].expand(len(x_ND), -1)
    read = x_ND @ tensors["down"].T if "down" in tensors else x_ND
    return read @ tensors["up"].T + tensors["bias"]


@pytest.mark.parametrize(("of_rank", "rank"), [(6, None), (2, 2), (2, 5), (1, 1)])
def test_a_map_that_there_is_is_found(of_rank: int, rank: int | None) -> None:
    x_ND, y_NO = data(of_rank)
    sub_block = SubBlock(Sums.of(x_ND[:300], y_NO[:300]), Sums.of(x_ND[300:], y_NO[300:]))
    found = mapped(sub_block.map(rank), x_ND)
    assert float((found - y_NO).norm() / (y_NO - y_NO.mean(0)).norm()) < 2e-2


def test_a_larger_map_errs_less_and_a_constant_is_the_mean() -> None:
    x_ND, y_NO = data(6, noise=3.0)
    sub_block = SubBlock(Sums.of(x_ND, y_NO), None)
    assert torch.allclose(sub_block.map(0)["bias"], y_NO.mean(0))
    maps = [sub_block.map(rank) for rank in (None, 4, 2, 1, 0)]
    errors = [float((mapped(one, x_ND) - y_NO).square().sum() / y_NO.square().sum()) for one in maps]
    assert errors == sorted(errors)
    assert [sub_block.lost(one) for one in maps] == pytest.approx(errors)
    named = sub_block.named("mlp") | SubBlock(*[Sums.of(x_ND[:9], y_NO[:9])] * 2).named("attention")
    assert SubBlock.found("mlp", named).held_out is None
    assert torch.equal(
        SubBlock.found("attention", named).map(None)["up"], SubBlock(*[Sums.of(x_ND[:9], y_NO[:9])] * 2).map(None)["up"]
    )


def test_noise_alone_is_mapped_to_about_its_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    x_ND, y_NO = (torch.randn(24, size, generator=draw).double() for size in (20, 3))
    sub_block = SubBlock(Sums.of(x_ND[:18], y_NO[:18]), Sums.of(x_ND[18:], y_NO[18:]))
    fresh_ND = torch.randn(500, 20, generator=draw).double()
    assert float(mapped(sub_block.map(None), fresh_ND).std(0).mean()) < 0.5


def test_inputs_that_never_change_are_no_division_by_zero() -> None:
    x_ND = torch.ones(10, 3).double()
    y_NO = torch.arange(20.0).double().view(10, 2)
    found = SubBlock(Sums.of(x_ND, y_NO), None).map(None)
    assert torch.allclose(mapped(found, x_ND), y_NO.mean(0).expand(10, -1))


# -- levels and costs ------------------------------------------------------------------------------------------------


def test_levels_say_what_they_store(linear: Assembly) -> None:
    attention, mlp = linear.space.units[:2]
    costs = dict(zip([level.name for level in mlp.levels], linear.space.rows("params")[1], strict=True))
    assert costs["linear:0,map=constant,hidden=64"] == HIDDEN
    assert costs["linear:0,map=full,hidden=64"] == HIDDEN**2 + HIDDEN
    assert costs["linear:0,map=rank,hidden=64,rank=8"] == 2 * HIDDEN * 8 + HIDDEN
    for unit in (attention, mlp):
        for level in unit.levels:
            form = form_of(level)
            if level.form == "linear":
                assert level.density == pytest.approx(form.params(unit, level) / unit.params(unit.groups))
                assert form.cache(unit, level) == 0
                assert form.macs(unit, level, 100) == form.params(unit, level) - HIDDEN
    assert [level.density for level in mlp.levels] == sorted((one.density for one in mlp.levels), reverse=True)


@pytest.mark.parametrize("metric", ["nonzeros", "memory", "kv_cache", "macs"])
def test_every_metric_counts_it(settings: dict[str, Any], metric: str) -> None:
    assembly = assemble(load_config(overrides=settings | {"budgets": {metric: 0.8}}))
    for unit, row in zip(assembly.space.units, assembly.space.rows(metric), strict=True):
        costs = dict(zip([level.name for level in unit.levels], row, strict=True))
        maps = [cost for name, cost in costs.items() if name.startswith("linear")]
        nothing = costs.get("groups:0", 0)
        assert maps == sorted(maps, reverse=True)
        assert all(nothing <= cost <= row[0] for cost in maps)
        if metric in ("nonzeros", "memory"):
            stored = {"nonzeros": HIDDEN, "memory": 4 * HIDDEN}[metric]
            assert costs.get("linear:0,map=constant,hidden=64", stored) == stored


def test_words(linear: Assembly) -> None:
    unit = linear.space.units[1]
    told = {form_of(level).told(level, unit.groups, "mlp") for level in unit.levels if level.form == "linear"}
    assert told == {
        "a linear map in its place", "a linear map of rank 8 in its place", "a constant in its place",
    }  # fmt: skip
    short = {form_of(level).short(level) for level in unit.levels if level.form == "linear"}
    assert short == {"linear", "rank 8", "constant"}


@pytest.mark.parametrize(
    ("argument", "maps"),
    [("constant", ["constant"]), ("16", ["rank"]), ("4/full", ["full", "rank"]), ("rank", ["rank"]), ("40", [])],
)
def test_maps_can_be_chosen(quick: dict[str, Any], argument: str, maps: list[str]) -> None:
    from autoprune.assembly import units_of

    config = load_config(overrides=quick | {"forms": f"groups,linear:{argument}"})
    view = config.chosen_task().prepare(config, False, lambda stage, share: None, None).view
    unit = units_of(view, config)[1]
    assert [level.option("map") for level in unit.levels if level.form == "linear"] == maps


# -- in place --------------------------------------------------------------------------------------------------------


def test_what_is_in_place_is_the_mean_or_the_least_squares_map(linear: Assembly) -> None:
    tokens = linear.splits.reconstruction
    linear.placer.release()
    block = linear.view.blocks[1]
    seen: list[tuple[Tensor, Tensor]] = []
    norm, mlp = block.get_submodule("post_attention_layernorm"), block.get_submodule("mlp")
    read: list[Tensor] = []
    hooks = [
        norm.register_forward_pre_hook(lambda _, args: read.append(args[0])),
        mlp.register_forward_hook(lambda _, args, out: seen.append((read[-1], out))),
    ]
    linear.view(tokens)
    for hook in hooks:
        hook.remove()
    x_ND, y_NO = (torch.cat([pair[i] for pair in seen]).flatten(0, 1) for i in range(2))
    left = {}
    for kind in KINDS:
        linear.placer.place(at(linear, "dense", "dense", "dense", kind))
        there = block.get_submodule("mlp")
        assert isinstance(there, Constant if kind == "constant" else LinearMap)
        with torch.no_grad():
            left[kind] = float((there(x_ND) - y_NO).square().sum())
    assert left["full"] < left["rank"] < left["constant"]
    bias = linear.store.own(3, at(linear, "dense", "dense", "dense", "constant")[3])["bias"]
    assert torch.allclose(bias, y_NO.mean(0), atol=1e-5)
    linear.placer.release()
    assert block.get_submodule("mlp") is mlp


def test_levels_follow_each_other_without_traces(linear: Assembly) -> None:
    evaluator = linear.evaluator(linear.splits.search, "kl")
    policies = [
        at(linear, *kinds) for kinds in ((), ("constant", "rank"), ("nothing", "nothing"), ("full", "constant"))
    ]
    policies += [tuple(1 for _ in linear.space.units)]
    first = evaluator.score(policies, range(4))
    for order in ([4, 2, 3, 1, 0], [1, 3, 0, 2, 4]):
        again = linear.evaluator(linear.splits.search, "kl")
        found = {i: again.score([policies[i]], range(4))[0] for i in order}
        assert all(np.array_equal(found[i], first[i]) for i in order)
    assert first[0].max() == pytest.approx(0, abs=1e-6)


def test_a_parallel_block_and_a_norm_behind_are_read_and_written_where_the_stand_in_is(tmp_path: Path) -> None:
    from transformers import CohereConfig, CohereForCausalLM, Olmo2Config, Olmo2ForCausalLM

    from autoprune.networks.loading import family_of
    from autoprune.networks.text import TextView

    shape: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    tokens = torch.randint(1, 50, (8, 12))
    for config_class, model_class in ((Olmo2Config, Olmo2ForCausalLM), (CohereConfig, CohereForCausalLM)):
        config: Any = config_class(**shape)
        model: Any = model_class(config).eval()
        view = TextView(model, family_of(config.model_type))
        (named,) = collect_sub_blocks(view, tokens, 2, ["0.attention", "0.mlp"])
        hidden = view.embed(tokens)
        before = view.run(0, hidden)
        added, reads = [], []
        for width in view.widths[0]:
            sub_block = SubBlock.found(width.width.kind, named)
            sums = sub_block.fitted + (sub_block.held_out or sub_block.fitted)
            added.append(sums.means[1].float())
            reads.append(sums)
            width.keep(0)
        nothing = view.run(0, hidden)
        for width in view.widths[0]:
            width.restore()
        scale = getattr(config, "residual_multiplier", 1.0)
        assert torch.allclose((before - nothing).mean((0, 1)), scale * torch.stack(added).sum(0), atol=0.5)
        assert torch.equal(view.run(0, hidden), before)
        assert float(reads[0].read[-1, -1]) == tokens.numel()


def test_shapes_that_are_measured_come_and_go(linear: Assembly) -> None:
    linear.placer.release()
    before = {name: tuple(tensor.shape) for name, tensor in linear.loaded.model.named_parameters()}
    blocks = linear.view.blocks
    units = linear.space.units
    with dense_afterwards(linear.view):
        for kinds in (("constant", "full"), ("nothing", "nothing"), ("rank", "dense"), ("nothing", "full")):
            place(linear.view, linear.space.levels_of(at(linear, *kinds)))
            modules = [blocks[0].get_submodule(name) for name in ("self_attn", "mlp")]
            there = [isinstance(module, Constant | LinearMap) for module in modules]
            assert there == [kind in KINDS for kind in kinds]
    assert {name: tuple(tensor.shape) for name, tensor in linear.loaded.model.named_parameters()} == before
    assert len(units) == 8


def copied_network(assembly: Assembly, proposal: tuple[int, ...]) -> Any:
    assembly.placer.place(proposal)
    return copied(assembly.placer)


# -- out of the search -----------------------------------------------------------------------------------------------


def mixed(assembly: Assembly) -> tuple[int, ...]:
    """Every kind of map in each kind of unit; the last block is replaced as a whole."""
    return at(assembly, "constant", "rank", "full", "constant", "rank", "full", "constant", "constant")


def test_what_is_exported_is_what_was_scored_and_costs_what_was_said(linear: Assembly, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    proposal = mixed(linear)
    policy = make_policy(linear, proposal, {})
    linear.placer.place(proposal)
    tokens = linear.splits.search[:2]
    wanted = linear.view(tokens)
    exporting.export_policy(linear, policy, tmp_path / "network")
    said = json.loads((tmp_path / "network" / "config.json").read_text())["per_layer_config"]
    assert said["0"]["linear"] == {"attention": {"map": "constant"}, "mlp": {"map": "rank", "rank": 8}}
    assert said["3"]["skip"] == ["attention", "mlp"]
    network: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "network").eval()
    with torch.no_grad():
        assert torch.allclose(network(tokens).logits, wanted, atol=1e-4)
        memory: Any = network_in_memory(linear, policy)
        assert torch.allclose(memory(tokens).logits, wanted, atol=1e-4)
    assert total_params(linear, proposal) == network.num_parameters()
    stored = sum(tensor.numel() for tensor in network.model.layers.parameters())
    fixed = sum(form.numel() for form in network.model.layers[0].parameters() if form.dim() == 3)
    assert linear.space.cost(proposal, "params") == stored - fixed
    saved = linear.space.cost(linear.space.dense, "macs") - linear.space.cost(proposal, "macs")
    assert total_macs(linear, linear.space.dense) - total_macs(linear, proposal) == pytest.approx(saved)
    linear.placer.release()
    generated = network.generate(tokens[:1, :8], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert generated.shape[1] == 12


def test_a_whole_search_and_fine_tuning_keep_the_form(
    settings: dict[str, Any], tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    tight = settings | {"budgets": {"params": 0.2}}
    found = autoprune.search(out=tmp_path / "run", **tight)
    assert "linear" in {unit.form for unit in found.policy.units}
    again = autoprune.search(out=tmp_path / "again", **tight)
    assert again.policy.units == found.policy.units
    answer = cli("show", tmp_path / "run")
    assert answer.status == 0
    assert any(word in answer.out for word in ("constant", "rank 8", "linear"))
    answer = cli("finetune", tmp_path / "run", "--max-steps", "3")
    assert answer.status == 0, answer.err
    config = json.loads((tmp_path / "run" / "finetuned" / "network" / "config.json").read_text())
    replaced = {
        (layer, kind) for layer, values in config["per_layer_config"].items() for kind in values.get("linear", {})
    }
    assert replaced == {
        (str(unit.block), unit.kind) for unit in found.policy.units if unit.form == "linear"
    }  # fmt: skip


def test_a_refit_solves_what_stands_there_and_changes_no_store(linear: Assembly) -> None:
    proposal = mixed(linear)
    evaluator = linear.evaluator(linear.splits.search, "kl")
    before = float(evaluator.score([proposal], range(8)).mean())
    found = refit(linear, proposal)
    assert {"0.0.bias", "0.1.up.weight", "0.1.down.weight", "0.1.up.bias"} <= set(found.tensors)
    tokens = linear.splits.search
    dense = linear.view(tokens).log_softmax(-1)
    found.place(linear.placer)
    after = float((dense.exp() * (dense - linear.view(tokens).log_softmax(-1))).sum(-1).mean())
    assert after < before
    linear.placer.release()
    assert float(evaluator.score([proposal], range(8)).mean()) == pytest.approx(before, rel=1e-6)
    own = linear.store.own(0, proposal[0])["bias"]
    linear.placer.place(proposal)
    assert torch.equal(linear.view.blocks[0].get_submodule("self_attn").get_parameter("bias"), own)
    linear.placer.release()


def test_what_is_behind_a_map_is_not_refitted_to_what_the_map_gives_already(linear: Assembly) -> None:
    linear.placer.place(at(linear, "full"))
    step = _step(linear.view, 0, linear.view.embed(linear.splits.search[:2]))
    linear.placer.release()
    whole = _step(linear.view, 0, linear.view.embed(linear.splits.search[:2]))
    assert set(step.written) == {0, 1}
    left = float((step.written[0] - whole.written[0]).square().sum() / whole.written[0].square().sum())
    assert left < 0.95


# -- what cannot be --------------------------------------------------------------------------------------------------


def test_what_is_no_map_is_refused(quick: dict[str, Any]) -> None:
    for argument in ("affine", "0", "constant/", "-3"):
        with pytest.raises(UserError, match=r"the form 'linear' has no map '.*': write linear:constant, linear:full"):
            assemble(load_config(overrides=quick | {"forms": f"groups,linear:{argument}"}))


def test_a_network_without_sub_blocks_is_refused() -> None:
    with pytest.raises(UserError, match=r"the family 'resnet' has none: leave linear out of forms=groups,linear"):
        assemble(load_config(overrides={"model": "tiny-cnn", "forms": "groups,linear", "budgets": {"params": 0.5}}))


def test_streamed_blocks_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"with device_memory, blocks are streamed .* not with forms=groups,linear"):
        assemble(load_config(overrides=settings | {"device_memory": 10**7}))


def test_a_stock_model_has_no_place_for_a_map(linear: Assembly, tmp_path: Path) -> None:
    policy = make_policy(linear, at(linear, "dense", "rank"), {})
    with pytest.raises(
        UserError, match=r"no place for the linear map that stands where the mlp of layer 0 was: export"
    ):
        exporting.export_policy(linear, policy, tmp_path / "network", uniform=True)
    assert not (tmp_path / "network").exists()


def test_llama_cpp_has_no_place_for_it(linear: Assembly, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    policy = make_policy(linear, at(linear, "dense", "constant"), {})
    with pytest.raises(UserError, match=r"llama\.cpp has no place for .* where 0\.mlp was: export it with --to hf"):
        exporting.export_policy(linear, policy, tmp_path / "network.gguf", to="gguf")


def test_runtimes_read_it_as_a_graph(linear: Assembly, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exporting.export_policy(linear, make_policy(linear, mixed(linear), {}), tmp_path / "graph", to="onnx")
    assert json.loads((tmp_path / "graph" / "config.json").read_text())["check"]["runtime"]


def test_adapters_are_trained_for_maps(linear: Assembly) -> None:
    student = copied_network(linear, mixed(linear))
    adapters.attach(student, 2, 4.0, 0)
    names = [name for name, module in student.named_modules() if hasattr(module, "adapter")]
    assert {"model.layers.0.mlp.up", "model.layers.0.mlp.down", "model.layers.1.self_attn.up"} <= set(names)
    adapters.merge(student)


def test_a_constant_is_a_bias_of_a_stock_model(linear: Assembly, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    proposal = at(linear, "constant", "dense", "dense", "constant", "nothing", "nothing", "constant", "constant")
    linear.placer.place(proposal)
    tokens = linear.splits.search[:2]
    wanted = linear.view(tokens)
    exporting.export_policy(linear, make_policy(linear, proposal, {}), tmp_path / "network", uniform=True)
    config = json.loads((tmp_path / "network" / "config.json").read_text())
    assert (config["attention_bias"], config["mlp_bias"], config["num_hidden_layers"]) == (True, True, 3)
    network: Any = LlamaForCausalLM.from_pretrained(tmp_path / "network").eval()
    with torch.no_grad():
        assert torch.allclose(network(tokens).logits, wanted, atol=1e-4)
    dense = linear.evaluator(linear.splits.search, "kl").score([linear.space.dense], range(2))
    assert float(dense.max()) == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:the export saves nothing")
@pytest.mark.parametrize(
    ("name", "there"),
    [("GPT2", True), ("OPT", True), ("Qwen2", False), ("Olmo2", False), ("Phi3", False)],
)
def test_constants_are_biases_where_a_stock_model_has_them(
    quick: dict[str, Any], tmp_path: Path, name: str, there: bool
) -> None:
    import transformers

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "pad_token_id": 0,
        "bos_token_id": 256, "eos_token_id": None, "ffn_dim": 48, "word_embed_proj_dim": 32,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**shape)
    model_class = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")
    model_class(config).save_pretrained(tmp_path / "model")
    save_byte_tokenizer(tmp_path / "model")
    settings = quick | {
        "model": str(tmp_path / "model"),
        "forms": "groups,linear:constant",
        "levels": [1, 0],
        "budgets": {"macs": 0.5},
    }
    assembly = assemble(load_config(overrides=settings))
    proposal = at(assembly, "constant", "dense", "dense", "constant")
    assembly.placer.place(proposal)
    tokens = assembly.splits.search[:2]
    wanted = assembly.view(tokens)
    policy = make_policy(assembly, proposal, {})
    exporting.export_policy(assembly, policy, tmp_path / "native")
    native: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "native").eval()
    with torch.no_grad():
        assert torch.allclose(native(tokens).logits, wanted, atol=1e-4)
    if not there:
        with pytest.raises(UserError, match="no place for the constant that stands where the attention of layer 0 was"):
            exporting.export_policy(assembly, policy, tmp_path / "stock", uniform=True)
        return
    exporting.export_policy(assembly, policy, tmp_path / "stock", uniform=True)
    stock: Any = model_class.from_pretrained(tmp_path / "stock").eval()
    with torch.no_grad():
        assert torch.allclose(stock(tokens).logits, wanted, atol=1e-4)


def test_a_configuration_that_does_not_fit_is_refused(linear: Assembly, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    exporting.export_policy(linear, make_policy(linear, at(linear, "dense", "rank"), {}), tmp_path / "network")
    path = tmp_path / "network" / "config.json"
    written = json.loads(path.read_text())
    for wrong in ({"map": "cubic"}, {"map": "rank"}, {"map": "rank", "rank": -1}, "full"):
        written["per_layer_config"]["0"]["linear"] = {"mlp": wrong}
        path.write_text(json.dumps(written))
        with pytest.raises(ValueError, match=r"`per_layer_config` of layer 0 has a `linear` that does not fit"):
            AutoModelForCausalLM.from_pretrained(tmp_path / "network")


def test_what_a_map_reads_is_of_unit_size() -> None:
    hidden = 1e3 * torch.randn(2, 3, HIDDEN)
    assert torch.allclose(normed(hidden).square().mean(-1), torch.ones(2, 3))
    assert normed(hidden.bfloat16()).dtype == torch.bfloat16


def test_a_level_that_stores_more_than_the_unit_is_not_offered() -> None:
    level = linear_level("full", 64, 1000)
    assert level == replace(level, density=1.0)
    assert linear_level("rank", 64, 100_000, 4) == Level(
        0, 576 / 100_000, "linear", (("map", "rank"), ("hidden", 64), ("rank", 4))
    )
