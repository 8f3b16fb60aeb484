"""Levels of single weights: which weights stay, what the others become, and what is placed, counted and exported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import autoprune
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.exporting import export_policy
from autoprune.level import form_called, form_of
from autoprune.levels.matrices import layout_at
from autoprune.levels.threshold import FLOOR, kept_above, threshold_of
from autoprune.levels.weights import Choice, kept_of_share, pruned
from autoprune.ports.criterion import load_criterion
from autoprune.provenance import make_policy
from autoprune.recovery.cutting_out import cut_out
from autoprune.testing.levels import consumer
from autoprune.training import loop as training
from autoprune.training import settings as training_settings

CRITERIA = ("magnitude", "wanda", "sparsegpt")
FORMS = "groups,sparse,2:4"
EVERYTHING = "tests.mixed_space:everything"


def error(weight_OD: Tensor, new_OD: Tensor, moments_DD: Tensor) -> float:
    """E |W x - W' x|^2."""
    difference_OD = (weight_OD - new_OD).double()
    return float((difference_OD @ moments_DD * difference_OD).sum())


# -- single matrices ---------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CRITERIA), st.floats(0.05, 0.95), st.integers(1, 70))
def test_exactly_so_many_weights_stay(seed: int, criterion: str, share: float, inputs: int) -> None:
    weight_OD, moments_DD = consumer(seed, 4 * inputs, 1)
    kept = kept_of_share(weight_OD, share)
    (half_OD, share_OD) = pruned(weight_OD, moments_DD, [Choice(0, (2, 4)), Choice(kept)], load_criterion(criterion))
    assert int((share_OD != 0).sum()) == kept
    assert ((half_OD != 0).view(-1, 4).sum(1) == 2).all()
    if criterion == "wanda":
        assert len(set((share_OD != 0).sum(1).tolist())) == 1
    if criterion != "sparsegpt":
        assert torch.equal(share_OD[share_OD != 0], weight_OD[share_OD != 0])


@pytest.mark.parametrize("choice", [Choice(5 * 48), Choice(5 * 29), Choice(0, (2, 4)), Choice(0, (4, 8))], ids=str)
def test_sparsegpt_beats_wanda_which_beats_magnitude(choice: Choice) -> None:
    errors = dict.fromkeys(CRITERIA, 0.0)
    for seed in range(5):
        weight_OD, moments_DD = consumer(seed, 96, 1)
        scale_D = torch.rand(96, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
        moments_DD = moments_DD * scale_D * scale_D[:, None]
        for criterion in CRITERIA:
            (new_OD,) = pruned(weight_OD, moments_DD, [choice], load_criterion(criterion))
            errors[criterion] += error(weight_OD, new_OD, moments_DD)
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]


def test_sparsegpt_of_two_inputs_is_the_best_that_there_is() -> None:
    moments_DD = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    weight_OD = torch.tensor([[0.5, 1.0], [-0.2, 3.0]])
    (new_OD,) = pruned(weight_OD, moments_DD, [Choice(0, (1, 2))], load_criterion("sparsegpt"))
    assert torch.equal(new_OD[:, 0], torch.zeros(2))
    best_O = weight_OD[:, 1] + weight_OD[:, 0] * 0.9 / 1.01  # with a damping of 0.01
    torch.testing.assert_close(new_OD[:, 1], best_O, rtol=1e-5, atol=1e-6)


def test_sparsegpt_of_inputs_that_are_independent_removes_the_least_and_corrects_nothing() -> None:
    weight_OD = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    moments_DD = torch.diag(torch.arange(1, 13, dtype=torch.float64))
    (new_OD,) = pruned(weight_OD, moments_DD, [Choice(18)], load_criterion("sparsegpt"))
    score_OD = weight_OD * (torch.arange(1, 13) + 0.01 * 6.5).sqrt()
    assert set(new_OD.flatten().nonzero().flatten().tolist()) == set(score_OD.abs().flatten().topk(18).indices.tolist())
    assert torch.equal(new_OD[new_OD != 0], weight_OD[new_OD != 0])


def test_several_choices_at_once_are_those_alone() -> None:
    weight_OD, moments_DD = consumer(3, 150, 1)
    choices = [Choice(5 * 100), Choice(5 * 40), Choice(5 * 7)]
    together = pruned(weight_OD, moments_DD, choices, load_criterion("sparsegpt"))
    for choice, new_OD in zip(choices, together, strict=True):
        (alone_OD,) = pruned(weight_OD, moments_DD, [choice], load_criterion("sparsegpt"))
        torch.testing.assert_close(new_OD, alone_OD, rtol=1e-4, atol=1e-5)


def test_a_threshold_of_the_network_keeps_the_share_and_no_matrix_collapses() -> None:
    draw = torch.Generator().manual_seed(0)
    weights = [scale * torch.randn(40, 50, generator=draw) for scale in (0.001, 1.0, 2.0)]
    threshold = threshold_of(weights, 0.3)
    kept = [kept_above(weight, threshold, 0.3) for weight in weights]
    assert sum(kept) == pytest.approx(0.3 * 6000, abs=2)
    assert kept[0] == round(FLOOR * 0.3 * 2000) < kept[1] < kept[2]


# -- a network ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["wanda", "sparsegpt", "global-magnitude"])
def sparse(request: pytest.FixtureRequest, quick: dict[str, Any]) -> Assembly:
    """A network whose units have levels of three forms."""
    own = {"forms": FORMS, "criterion": request.param, "budgets": {"nonzeros": 0.5, EVERYTHING: 1.0}}
    return assemble(load_config(overrides=quick | own))


def policy_of(assembly: Assembly, *names: str) -> tuple[int, ...]:
    """Levels whose names begin with those given, in turn over the units."""
    chosen = []
    for u, unit in enumerate(assembly.space.units):
        name = names[u % len(names)]
        chosen.append(next(i for i, level in enumerate(unit.levels) if level.name.startswith(name.format(unit.groups))))
    return tuple(chosen)


MIXED = ("sparse:{},share=0.5", "n:m:{},pattern=2:4", "sparse:{},share=0.25")


def test_every_form_placed_equals_every_form_exported(sparse: Assembly, tmp_path: Path) -> None:
    proposal = policy_of(sparse, *MIXED)
    loss = sparse.evaluator(sparse.splits.search, "ce").score([proposal], range(4)).mean()
    policy = make_policy(sparse, proposal, {})
    export_policy(sparse, policy, tmp_path / "network")
    tokens = json.dumps(sparse.splits.search[:4].tolist())
    script = (
        "import sys, json, torch; from transformers import AutoModelForCausalLM; "
        "tokens = torch.tensor(json.loads(sys.argv[2])); m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); "
        "print(type(m).__name__, float(m(input_ids=tokens, labels=tokens).loss))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "network"), tokens], capture_output=True, text=True, check=True
    )
    kind, value = done.stdout.split()
    assert kind == "LlamaForCausalLM", "a stock model of the dense shape, without autoprune"
    assert float(value) == pytest.approx(loss, rel=1e-5)


def test_costs_equal_a_recount_of_the_exported_file(sparse: Assembly, tmp_path: Path) -> None:
    proposal = policy_of(sparse, *MIXED)
    export_policy(sparse, make_policy(sparse, proposal, {}), tmp_path / "network")
    tensors = load_file(tmp_path / "network" / "model.safetensors")
    dense = sparse.space.cost(sparse.space.dense, "params")
    rest = sparse.loaded.n_params - dense
    stored = sum(int((tensor != 0).sum()) for tensor in tensors.values())
    for metric in ("params", "nonzeros"):
        assert sparse.space.cost(proposal, metric) == pytest.approx(stored - rest, abs=3)  # a weight may round to 0
    macs = sparse.space.cost(sparse.space.dense, "macs") - sparse.space.cost(proposal, "macs")
    assert macs == pytest.approx(dense - sparse.space.cost(proposal, "params"), rel=0.02)


def test_a_pattern_holds_in_what_is_placed_and_nothing_is_left_of_it(sparse: Assembly) -> None:
    before = {name: tensor.clone() for name, tensor in sparse.loaded.model.state_dict().items()}
    sparse.placer.place(policy_of(sparse, "n:m:{},pattern=2:4"))
    for row in sparse.view.widths:
        for width in row:
            for key in width.matrix_keys:
                weight_OD = layout_at(width, key).matrix(width.dense.live(key).data)
                assert ((weight_OD != 0).reshape(-1, 4).sum(1) <= 2).all(), key
    sparse.placer.release()
    for name, tensor in sparse.loaded.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_levels_are_ordered_by_density_and_told(sparse: Assembly) -> None:
    for unit in sparse.space.units:
        densities = [level.density for level in unit.levels]
        assert densities == sorted(densities, reverse=True)
        assert {level.form for level in unit.levels} == {"groups", "sparse", "n:m"}
        told = [form_of(level).told(level, unit.groups, unit.kind) for level in unit.levels]
        assert any("% of weights kept" in one for one in told)
        assert "2 of every 4 weights kept" in told


@pytest.mark.parametrize(("rank", "optimizer"), [(0, "adamw"), (0, "sgd"), (4, "adamw")])
def test_masks_stay_masks_while_a_network_is_trained(quick: dict[str, Any], rank: int, optimizer: str) -> None:
    sparse = assemble(
        load_config(overrides=quick | {"forms": FORMS, "criterion": "wanda", "budgets": {EVERYTHING: 0.6}})
    )
    policy = make_policy(sparse, policy_of(sparse, *MIXED), {})
    student = cut_out(sparse, policy)
    fresh = {name: tensor.clone() for name, tensor in student.named_parameters()}
    examples = sparse.task.training(sparse)
    given = {"epochs": 1, "batch": 8, "lora": rank, "optimizer": optimizer, "lr": 1e-2, "decay": 0.1}
    training.train(student, examples, training_settings.settings_of(examples.defaults, given), None)
    for name, tensor in student.named_parameters():
        if name.split(".")[-2].endswith("_proj"):
            assert not torch.equal(tensor, fresh[name]), name
            assert not tensor[fresh[name] == 0].any(), name


def test_users_of_latency_are_told_that_zeros_save_none() -> None:
    told = form_called("sparse").notice(["params", "latency"])
    assert told is not None
    assert "stock kernels take as long with zeros" in told
    assert form_called("sparse").notice(["params"]) is None


def test_levels_that_another_one_beats_are_left_out(quick: dict[str, Any]) -> None:
    own = {"forms": FORMS, "criterion": "sparsegpt"}
    every = assemble(load_config(overrides=quick | own | {"budgets": {EVERYTHING: 0.5}}))
    some = assemble(load_config(overrides=quick | own | {"budgets": {"nonzeros": 0.5}}))
    for all_of, unit, known in zip(every.space.units, some.space.units, some.store.statistics, strict=True):
        assert len(unit.levels) < len(all_of.levels)
        assert set(unit.levels) <= set(all_of.levels)
        assert unit.levels[-1].kept == 0
        assert not any(level.form == "n:m" for level in unit.levels), "a share of as many weights is better"
        left = [
            (form_of(one).nonzeros(unit, one), error)
            for one, error in zip(unit.levels, known.output_errors, strict=True)
        ]
        assert not any(one != other and one[0] <= other[0] and one[1] <= other[1] for one in left for other in left)


# -- searches and mistakes ---------------------------------------------------------------------------------------------


def test_a_search_of_three_forms_is_better_than_one_of_groups(quick: dict[str, Any], tmp_path: Path) -> None:
    own = quick | {"max_evals": None, "max_tokens": 15_000, "budgets": {"params": 0.5}}
    groups = autoprune.search(out=tmp_path / "groups", **own)
    mixed = autoprune.search(out=tmp_path / "mixed", forms=FORMS, **own)
    assert mixed.loss < groups.loss
    assert {unit.form for unit in mixed.policy.units} & {"sparse", "n:m"}
    again = autoprune.search(out=tmp_path / "again", forms=FORMS, **own)
    assert again.policy.units == mixed.policy.units


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"forms": "sparse:1.5"}, "shares of weights between 0 and 1"),
        ({"forms": "4:2"}, "fewer than all and more than none"),
        ({"forms": "n:m"}, "write 2:4 or 4:8, and not ''"),
        ({"forms": "3:5"}, "needs matrices whose inputs divide by 5: self_attn.q_proj in unit 0.attention has 64"),
        ({"forms": "sparse", "levels": 2}, "no level between all weights and none"),
        ({"forms": "groups,sparse", "agent": "policy-gradient-masks"}, "keeps or removes single groups"),
        ({"forms": "groups,sparse", "device_memory": "1GiB"}, "blocks are streamed with levels of groups alone"),
    ],
)
def test_mistakes_are_told(quick: dict[str, Any], own: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        assemble(load_config(overrides=quick | own))
