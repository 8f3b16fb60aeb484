"""Masks: their bits, their costs, what they compute, how they are projected, learned, kept and exported."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune import api
from autoprune.agents.policy_gradient_masks import MaskPolicy
from autoprune.agents.projection import Projection
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.errors import UserError
from autoprune.level import group_levels
from autoprune.mask import Mask
from autoprune.networks.loading import load_model
from autoprune.policy import Policy, ranges, unranges
from autoprune.provenance import make_policy, proposal_of
from autoprune.refits import refit
from autoprune.space import Proposal, SearchSpace, Unit
from autoprune.space_file import load_space, save_space
from autoprune.testing.toys import counts, toy_space
from tests.conftest import Answer
from tests.families import save_tiny

kept_groups = st.lists(st.lists(st.booleans(), min_size=1, max_size=20), min_size=1, max_size=6)


def fine_space(groups: tuple[int, ...] = (6, 40, 6, 40), budget: float = 0.5) -> SearchSpace:
    """Units of dear and of cheap groups."""
    kinds = ["attention" if size == 6 else "mlp" for size in groups]
    price = {"attention": 20, "mlp": 3}
    units = [
        Unit(f"{u}.{kind}", kind, u, size, group_levels(size, (size, 0)), price[kind])
        for u, (kind, size) in enumerate(zip(kinds, groups, strict=True))
    ]
    costs = {"params": [[unit.params(k) for k in counts(unit)] for unit in units]}
    single = {"params": [[unit.params(k) for k in range(unit.groups + 1)] for unit in units]}
    return SearchSpace(units, costs, {"params": budget * sum(row[0] for row in costs["params"])}, single)


@pytest.fixture(scope="module")
def assembly(quick: dict[str, Any]) -> Assembly:
    return assemble(load_config(None, quick), masks=True)


def drawn(space: SearchSpace, seed: int, share: float = 0.5) -> Mask:
    rng = np.random.default_rng(seed)
    return Mask.pack([rng.random(groups) < share for groups in space.groups])


# -- bits and costs ----------------------------------------------------------------------------------------------


@given(kept_groups)
def test_bits_read_back(kept: list[list[bool]]) -> None:
    groups = [len(row) for row in kept]
    mask = Mask.pack([np.array(row) for row in kept])
    assert [row.tolist() for row in mask.unpack(groups)] == kept
    assert Mask(bytes.fromhex(mask.bits.hex())) == mask
    assert len(mask.bits) == sum(-(-size // 8) for size in groups)


@pytest.mark.parametrize(
    ("bits", "seen"), [(b"\xff\xff", "2 bytes"), (b"\xff", "beyond a unit's last"), (b"", "0 bytes")]
)
def test_other_units_bits_are_refused(bits: bytes, seen: str) -> None:
    with pytest.raises(ValueError, match=seen):
        Mask(bits).unpack([6])
    space = toy_space(units=1, levels=7, budget=1.0)
    with pytest.raises(UserError, match="does not fit a space of 1 units"):
        space.check(Mask(bits))


def test_a_prefix_costs_what_its_level_does() -> None:
    space = toy_space(units=6, latency=0.7)
    rng = np.random.default_rng(0)
    for levels in [space.dense, space.sparsest, *(space.sample(rng) for _ in range(20))]:
        mask = Mask.prefix(space.kept(levels), space.groups)
        assert space.kept(mask) == space.kept(levels)
        for metric in space.costs:
            assert space.cost(mask, metric) == pytest.approx(space.cost(levels, metric))
        assert space.feasible(mask) == space.feasible(levels)


def test_a_space_file_keeps_what_masks_cost(tmp_path: Path) -> None:
    space = fine_space()
    save_space(tmp_path / "space.json", space)
    again, _ = load_space(tmp_path / "space.json")
    mask = drawn(space, 3)
    assert again.cost(mask, "params") == space.cost(mask, "params")
    assert again.budgets == space.budgets


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.02, 1.0))
def test_projections_hold_the_budget_and_leave_little_of_it(seed: int, budget: float) -> None:
    space = fine_space(budget=budget)
    project = Projection(space)
    score_G = np.random.default_rng(seed).normal(size=sum(space.groups))
    kept_G, threshold = project(score_G)
    mask = project.pack(kept_G)
    assert space.feasible(mask)
    assert np.all(kept_G[score_G > threshold + 1e-9]), "what is above the common threshold stays"
    left = space.budgets["params"] - space.cost(mask, "params")
    assert left < 3 or kept_G[project.unit_G % 2 == 1].all(), "no cheap group would fit any more"


# -- what is computed --------------------------------------------------------------------------------------------


def test_a_prefix_computes_what_its_level_does(assembly: Assembly) -> None:
    space = assembly.space
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    rng = np.random.default_rng(0)
    drawn = [space.uniform(), space.sparsest, *(space.sample(rng) for _ in range(30))]
    whole = [all(kept % unit.bundle == 0 for kept, unit in zip(space.kept(p), space.units, strict=True)) for p in drawn]
    policies = list(itertools.compress(drawn, whole))[:5]
    bundles = [[unit.bundles(k) for k, unit in zip(space.kept(p), space.units, strict=True)] for p in policies]
    masks = [Mask.prefix(kept, space.groups) for kept in bundles]
    assert len(masks) == 5
    sequences = range(evaluator.n_sequences)
    assert evaluator.score(masks, sequences) == pytest.approx(evaluator.score(policies, sequences), abs=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_cutting_groups_out_is_zeroing_them(name: str, tmp_path: Path, text_file: str) -> None:
    """Without reconstruction: the consumer's columns of removed groups zeroed in the dense network."""
    path = save_tiny(name, tmp_path / name, torch.float32)
    given = {"model": str(path), "data": text_file, "sequence_length": 16, "criterion": "wanda"}
    small = {"reconstruction_sequences": 4, "search_sequences": 2, "validation_sequences": 2}
    assembly = assemble(load_config(None, given | small), masks=True)
    mask, tokens_NT = drawn(assembly.space, 5, 0.6), assembly.splits.search
    assembly.placer.place(mask)
    cut = assembly.loaded.model(input_ids=tokens_NT).logits
    assembly.placer.release()
    widths = [width for row in assembly.view.widths for width in row]
    for width, kept_G in zip(widths, mask.unpack(assembly.space.groups), strict=True):
        if kept_G.any():  # a unit that is dropped takes its bias along
            gone_D = torch.from_numpy(~kept_G).repeat_interleave(width.consumer_weight.shape[1] // len(kept_G))
            width.consumer_weight[:, gone_D] = 0
        else:
            width.keep(0)
    zeroed = assembly.loaded.model(input_ids=tokens_NT).logits
    assert torch.allclose(cut, zeroed, atol=2e-5)


def test_reconstruction_helps(assembly: Assembly) -> None:
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    masks = [drawn(assembly.space, seed, 0.7) for seed in range(6)]
    rebuilt = evaluator.score(masks, range(8)).mean()
    masked, evaluator.placer.masked = evaluator.placer.masked, None
    plain = evaluator.score(masks, range(8)).mean()
    evaluator.placer.masked = masked
    assert rebuilt < plain


def test_levels_and_masks_share_a_batch(assembly: Assembly) -> None:
    space = assembly.space
    evaluator = assembly.evaluator(assembly.splits.search, "kl")
    mixed: list[Proposal] = [space.uniform(), drawn(space, 1), space.dense, drawn(space, 2)]
    together = evaluator.score(mixed, [0, 1])
    alone = np.concatenate([evaluator.score([one], [0, 1]) for one in mixed])
    assert np.array_equal(together, alone)


# -- what is learned ---------------------------------------------------------------------------------------------


def test_learns_which_groups_matter() -> None:
    """The order that it starts from is worthless; a linear loss says what each group is worth."""
    space = fine_space(groups=(40, 40, 40))
    worth_G = np.random.default_rng(1).exponential(size=120)
    worth_G /= worth_G.sum()

    def loss(mask: Mask) -> float:
        return float(worth_G[~np.concatenate(mask.unpack(space.groups))].sum())

    policy = MaskPolicy(space, [20, 20, 20], softness=0.5, unit_noise=0.02)
    rng = np.random.default_rng(0)
    start = loss(policy.mode())
    best = float(np.sort(worth_G)[:60].sum())
    for _ in range(300):
        batch = [policy.sample(rng) for _ in range(8)]
        policy.learn(batch, np.array([loss(one.mask) for one in batch]), 0.3, 0.1)
    assert (loss(policy.mode()) - best) < 0.35 * (start - best)


def test_learns_how_much_of_each_unit_to_keep() -> None:
    """The order is right, the shares are not: one unit's groups are worth ten times the others'."""
    space = fine_space(groups=(40, 40, 40))
    worth_G = np.concatenate([np.full(40, 10.0), np.ones(80)])

    def loss(mask: Mask) -> float:
        return float(worth_G[~np.concatenate(mask.unpack(space.groups))].sum())

    policy = MaskPolicy(space, [20, 20, 20], softness=0.05, unit_noise=0.05)
    rng = np.random.default_rng(0)
    for _ in range(150):
        batch = [policy.sample(rng) for _ in range(8)]
        policy.learn(batch, np.array([loss(one.mask) for one in batch]), 0.0, 0.3)
    assert space.kept(policy.mode())[0] >= 38


def test_a_batch_that_teaches_nothing_changes_nothing() -> None:
    policy = MaskPolicy(fine_space(), [3, 20, 3, 20], 0.1, 0.05)
    batch = [policy.sample(np.random.default_rng(i)) for i in range(4)]
    before = policy.logit_G.copy()
    for losses in ([1.0] * 4, [np.inf] * 4, [np.nan] * 4):
        policy.learn(batch, np.array(losses), 0.1, 0.1)
    assert np.array_equal(policy.logit_G, before)
    policy.learn(batch, np.array([1.0, 2.0, np.inf, 1.5]), 0.1, 0.1)
    assert np.isfinite(policy.logit_G).all()


# -- what is kept ------------------------------------------------------------------------------------------------


def test_a_policy_file_names_the_groups_of_the_original_network(assembly: Assembly, tmp_path: Path) -> None:
    mask = drawn(assembly.space, 7)
    make_policy(assembly, mask, {}).save(tmp_path / "policy.json")
    policy = Policy.load(tmp_path / "policy.json")
    assert proposal_of(assembly, policy) == mask
    for u, (unit, kept_G) in enumerate(zip(policy.units, mask.unpack(assembly.space.groups), strict=True)):
        assert unit.level is None
        kept_G = kept_G.repeat(assembly.space.units[u].bundle)
        named = {int(group) for group in assembly.store.order(u)[torch.from_numpy(kept_G)]}
        assert set(unranges(unit.kept_groups)) == named


@pytest.mark.parametrize("masked", [False, True])
def test_a_policy_of_whole_kv_groups_is_read_in_todays_heads(assembly: Assembly, masked: bool) -> None:
    """As files of earlier versions have it, whose levels kept 2, 1 or 0 KV groups of two heads."""
    space = assembly.space
    kept = [4 if unit.kind == "attention" and unit.block else 2 for unit in space.units]
    levels = tuple(counts(unit).index(k) if k in counts(unit) else 1 for unit, k in zip(space.units, kept, strict=True))
    bundles = [unit.bundles(k) for k, unit in zip(space.kept(levels), space.units, strict=True)]
    proposal = Mask.prefix(bundles, space.groups) if masked else levels
    today = make_policy(assembly, proposal, {})
    older = [
        unit.model_copy(update={
            "groups": 2, "kept": unit.kept // 2, "level": None if masked else (4 - unit.kept) // 2,
            "kept_groups": ranges(sorted({g // 2 for g in unranges(unit.kept_groups)})),
        }) if unit.kind == "attention" else unit
        for unit in today.units
    ]  # fmt: skip
    assert {unit.kept for unit in older if unit.kind == "attention"} == {1, 2}
    assert proposal_of(assembly, today.model_copy(update={"units": older})) == proposal


@pytest.mark.slow
def test_a_search_of_masks_ends_in_a_smaller_network(
    quick_arguments: list[str], cli: Callable[..., Answer], tmp_path: Path
) -> None:
    options = [f"agent_options.{key}={value}" for key, value in {"tokens": 32, "race_tokens": 64}.items()]
    arguments = ["search", *quick_arguments, "max_evals=120", *options, "--agent", "policy-gradient-masks"]
    run = tmp_path / "run"
    answer = cli(*arguments, "--out", run, "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert found["costs"]["params"]["policy"] <= found["costs"]["params"]["budget"]
    policy = Policy.load(run / "policy.json")
    assert all(unit.level is None for unit in policy.units), "the answer is a mask"

    answer = cli("export", run, tmp_path / "hf", "--json")
    assert answer.status == 0, answer.err
    report = {path: api.evaluate(path, sequence_length=32) for path in (tmp_path / "hf", run)}
    assert report[tmp_path / "hf"]["params"] == report[run]["params"]
    exported = load_exported(tmp_path / "hf")
    reopened = assemble(load_config(run / "config.yaml"))
    proposal = proposal_of(reopened, policy)
    if policy.refit is None:
        reopened.placer.place(proposal)
    else:
        refit(reopened, proposal, policy.refit.digest).place(reopened.placer)
    tokens_NT = reopened.splits.search
    with torch.no_grad():
        placed, loaded = (model(input_ids=tokens_NT).logits for model in (reopened.loaded.model, exported))
    assert torch.allclose(placed, loaded, atol=1e-5)


def load_exported(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def test_damaged_moments_are_a_sentence(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    assemble(load_config(None, quick), masks=True)
    (file,) = (tmp_path / "moments").iterdir()
    file.write_bytes(b"none")
    again = assemble(load_config(None, quick), masks=True)
    with pytest.raises(UserError, match="damaged"):
        again.placer.place(drawn(again.space, 0))


def test_the_dense_network_is_as_before(assembly: Assembly, quick: dict[str, Any]) -> None:
    tokens_NT = assembly.splits.search
    assembly.placer.place(drawn(assembly.space, 1))
    assembly.placer.release()
    with torch.no_grad():
        live, stock = (m(input_ids=tokens_NT).logits for m in (assembly.loaded.model, load_model(quick["model"]).model))
    assert torch.allclose(live, stock, atol=1e-5)
