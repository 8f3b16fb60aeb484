"""Comparisons: equal limits, a table of what was found, and the same results however often it was stopped."""

import itertools
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import autoprune
from autoprune import study
from autoprune.comparing import comparison, search_runner
from autoprune.comparing.comparison import Comparison
from autoprune.comparing.curves import thinned
from autoprune.comparing.results import curves_of, load_results, table_of
from autoprune.config import DEFAULT_TOKENS
from autoprune.errors import LimitReached, UserError
from autoprune.objective import Answer, Limits, Objective
from autoprune.policy import Policy, to_json
from autoprune.testing.toys import ToyScorer, toy_space
from autoprune.wording import Words
from tests.conftest import Answer as Said
from tests.conftest import Replaceable
from tests.test_resume import command, outcome, wait_for_scores

Cli = Callable[..., Said]
AGENTS = ["evolution", "random", "uniform"]
TOKENS = 1024
SPLIT = 256  # tokens

FAILING = """
from autoprune.errors import UserError

class Fails:
    def search(self, objective, rng):
        objective([objective.space.uniform()])
        raise UserError("it cannot go on.")
"""


@pytest.fixture(scope="module")
def settings(quick: dict[str, Any]) -> dict[str, Any]:
    return quick | {"max_evals": None, "max_tokens": TOKENS}


@pytest.fixture(scope="module")
def compared(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A finished comparison. Copy it before changing it."""
    return autoprune.compare(AGENTS, 2, out=tmp_path_factory.mktemp("comparisons") / "cmp", **settings)


@pytest.fixture
def arguments(settings: dict[str, Any]) -> list[str]:
    return [Replaceable(f"{key}={json.dumps(value)}") for key, value in settings.items()]


def untimed(results: dict[str, Any]) -> dict[str, Any]:
    """Results without their seconds."""
    searches = [
        {key: value for key, value in one.items() if key != "seconds"}
        | {"curve": [(tokens, loss) for tokens, _, loss in one.get("curve", ())]}
        for one in results["searches"]
    ]
    table = [{key: value for key, value in row.items() if key != "seconds"} for row in results["table"]]
    return results | {"searches": searches, "table": table}


def as_found(run: Path) -> float:
    """The validation loss of a run's best policy without its refit."""
    policy = Policy.load(run / "policy.json").as_found()
    return float(policy.losses["validation"]["best"]["loss"])


def test_every_search_is_an_ordinary_run(compared: Comparison, cli: Cli) -> None:
    runs = [f"{agent}-s{seed}" for seed in (0, 1) for agent in AGENTS]
    assert [one["run"] for one in compared.league["searches"]] == runs
    for one in compared.league["searches"]:
        run = compared.path / one["run"]
        policy, result = Policy.load(run / "policy.json"), json.loads((run / "result.json").read_text())
        assert policy.provenance["agent"] == one["agent"]
        assert policy.provenance["seed"] == one["seed"]
        assert policy.losses["validation"]["best"]["loss"] == one["loss"] == result["table"][-1]["validation_loss"]
        assert one["policy"] == f"{one['run']}/policy.json"
    assert one["agent"] in cli("show", compared.path / one["run"]).out
    assert cli("export", compared.path / "evolution-s1", "exported", "--to", "policy").status == 0
    assert load_results(compared.path) == json.loads(to_json(compared.league))
    assert yaml.safe_load((compared.path / "compare.yaml").read_text()) == {"agents": AGENTS, "seeds": [0, 1]}


def test_limits_are_equal_and_the_lowest_mean_is_first(compared: Comparison) -> None:
    searches = compared.league["searches"]
    assert all(one["tokens"] <= TOKENS for one in searches)
    assert all(one["tokens"] > TOKENS - SPLIT for one in searches if one["agent"] != "uniform")
    losses = {agent: [one["loss"] for one in searches if one["agent"] == agent] for agent in AGENTS}
    assert [row["agent"] for row in compared.table] == sorted(AGENTS, key=lambda agent: np.mean(losses[agent]))
    for row in compared.table:
        own = losses[row["agent"]]
        assert row["loss"] == pytest.approx(np.mean(own))
        assert row["sd"] == pytest.approx(np.std(own, ddof=1))
        assert (row["best"]["loss"], row["worst"]["loss"]) == (min(own), max(own))
        assert row["seeds"] == 2
    first, second = compared.table[:2]
    assert first["behind"] is None
    assert second["behind"] == pytest.approx(second["loss"] - first["loss"])
    assert second["behind_error"] == pytest.approx(math.hypot(first["sd"], second["sd"]) / math.sqrt(2))
    references = compared.league["references"]
    assert references["dense"]["params"] > references["uniform"]["params"]
    found = [as_found(compared.path / one["run"]) for one in searches if one["agent"] == "uniform"]
    assert found == pytest.approx([references["uniform"]["loss"]] * 2)


def test_curves_have_quartiles_ascending_in_x(compared: Comparison) -> None:
    for agent, axes in compared.curves.items():
        runs = [one for one in compared.league["searches"] if one["agent"] == agent]
        for column, axis in enumerate(("tokens", "seconds")):
            x, low, median, high = axes[axis]
            assert len(x) == len(low) == len(median) == len(high)
            assert all(np.diff(x) > 0)
            assert all(a <= b <= c for a, b, c in zip(low, median, high, strict=True))
            assert x[-1] == pytest.approx(max(run["curve"][-1][column] for run in runs))
            assert median[-1] == pytest.approx(np.median([run["curve"][-1][2] for run in runs]))
    for one in compared.league["searches"]:
        assert len(one["curve"]) <= search_runner.POINTS + 1
        assert one["curve"][-1][:2] == [one["tokens"], one["seconds"]]
        found = as_found(compared.path / one["run"])  # curves are of what searches score
        assert one["curve"][-1][2] == pytest.approx(found, abs=1e-5)  # 8 sequences are the whole split here
        assert json.loads((compared.path / one["run"] / "curve.json").read_text()) == one["curve"]


def test_the_same_command_again_searches_nothing(
    compared: Comparison, arguments: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "assemble", lambda *_: pytest.fail("nothing needs a model"))
    chosen = ("--agents", ",".join(AGENTS), "--seeds", "2", "--out", compared.path)
    answer = cli("compare", *arguments, *chosen, "--json")
    assert answer.status == 0
    assert json.loads(answer.out, parse_constant=pytest.fail) == json.loads(to_json(compared.league))
    assert json.loads(cli("resume", compared.path, "--json").out) == json.loads(answer.out)
    printed = cli("compare", *arguments, *chosen)
    rows = [line.split() for line in printed.out.split("Searches")[0].splitlines()]
    assert [row[1] for row in rows if row and row[0].isdigit()] == [row["agent"] for row in compared.table]
    assert any(row[:1] == ["dense"] for row in rows)
    assert not any(row[:1] == ["uniform"] for row in rows)  # it takes part
    assert f"league:  {compared.path / 'league.json'}" in printed.out


def test_each_search_finds_what_it_finds_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    agents = ["policy-gradient-masks", "ppo", "tpe", "evolution"]
    autoprune.compare(agents, [1], out=tmp_path / "cmp", **settings, agent_options={"evolution.offspring": 4})
    for agent in agents:
        options = {"offspring": 4} if agent == "evolution" else {}
        alone = autoprune.search(agent=agent, seed=1, out=tmp_path / agent, **settings, agent_options=options)
        assert outcome(tmp_path / "cmp" / f"{agent}-s1") == outcome(alone.path)


def test_agents_and_seeds_may_be_added(arguments: list[str], cli: Cli) -> None:
    first = cli("compare", *arguments, "--agents", "random", "--seeds", "1", "--out", "cmp", "--json")
    assert "search 1 of 1: random seed 0: loss " in first.err
    before = Path("cmp/random-s0/result.json").stat().st_mtime_ns
    more = cli("compare", *arguments, "--agents", "uniform,random", "--seeds", "2", "--out", "cmp", "--json")
    ended = [line.split(":")[0] for line in more.err.splitlines() if line.startswith("search ")]
    assert ended == ["search 1 of 4", "search 3 of 4", "search 4 of 4"]
    assert Path("cmp/random-s0/result.json").stat().st_mtime_ns == before
    results = json.loads(more.out)
    assert [one["run"] for one in results["searches"]] == ["uniform-s0", "random-s0", "uniform-s1", "random-s1"]
    assert results["searches"][1] == json.loads(first.out)["searches"][0]


def test_other_settings_are_refused(
    compared: Comparison, arguments: list[str], refused: Callable[..., str], cli: Cli
) -> None:
    there = ("--agents", ",".join(AGENTS), "--seeds", "2", "--out", compared.path)
    refused("compare", *arguments, *there, "max_tokens=99", seen=("max_tokens is 1024 there and 99 now", "--out"))
    option = "agent_options.evolution.offspring=3"
    refused("compare", *arguments, *there, option, seen=("agent_options.evolution is {} there", "offspring"))
    refused("compare", *arguments, "--agents", "random", *there[2:], seen=("agents evolution, uniform",))
    refused("compare", *arguments, *there[:2], "--seeds", "1", *there[4:], seen=("seeds 1,",))
    assert load_results(compared.path) == json.loads(to_json(compared.league))
    with pytest.raises(UserError, match=r"autoprune.compare"):
        autoprune.resume(compared.path)
    run = compared.path / "random-s0"
    refused("compare", *arguments, "--agents", "random", "--out", run, seen=("holds a run already",))


def test_what_has_ended_and_what_is_left_are_searches_of_the_same_levels(
    compared: Comparison, refused: Callable[..., str], tmp_path: Path
) -> None:
    """As not where an earlier version began the comparison, or its text is another one by now."""
    out = tmp_path / "cmp"
    shutil.copytree(compared.path, out)
    journal = out / "uniform-s0" / "journal.jsonl"
    header, rest = journal.read_text().split("\n", 1)
    journal.write_text(json.dumps(json.loads(header) | {"subject": "0123456789abcdef/kl"}) + "\n" + rest)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert comparison.resume(out).league == compared.league  # nothing is left, so nothing is mixed
    shutil.rmtree(out / "random-s1")
    refused("resume", out, seen=(str(journal), "0123456789abcdef", "earlier version", "start a new run"))
    assert all(path.read_bytes() == content for path, content in before.items() if path.is_file())
    assert not (out / "random-s1").exists()


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (["--agents", "random,evolutoin"], ("evolutoin", "Did you mean 'evolution'?")),
        (["--agents", ","], ("at least one agent",)),
        (["--agents", "random", "agent_options.random.tokns=3"], ("'random' has no setting 'tokns'",)),
        (["--agents", "random", "agent_options.tokens=3"], ("agent_options.tokens", "agent_options.AGENT.KEY=VALUE")),
        (["--agents", "random", "agent_options.random=3"], ("agent_options.random",)),
        (["--agents", "random", "--budget", "params=0.0001", "levels=[1, 0.9]"], ("params",)),
        (["--agents", "random", "--device", "nowhere"], ("nowhere",)),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(
    given: list[str], seen: tuple[str, ...], arguments: list[str], refused: Callable[..., str]
) -> None:
    refused("compare", *arguments, *given, "--out", "cmp", seen=seen)
    assert not Path("cmp").exists()


def test_a_failing_agent_does_not_lose_the_others(arguments: list[str], cli: Cli) -> None:
    Path("failing.py").write_text(FAILING)
    chosen = ("--agents", "failing.py:Fails,random,uniform", "--seeds", "2", "--out", "cmp")
    answer = cli("compare", *arguments, f"max_tokens={SPLIT}", *chosen)
    assert answer.status == 0
    results = load_results(Path("cmp"))
    failed = [one for one in results["searches"] if "failed" in one]
    assert [(one["agent"], one["seed"]) for one in failed] == [("failing.py:Fails", 0), ("failing.py:Fails", 1)]
    assert {one["failed"] for one in failed} == {"it cannot go on."}
    assert "search 1 of 6: failing.py:Fails seed 0: failed: it cannot go on." in answer.err
    assert "failing.py:Fails seed 1 failed: it cannot go on." in answer.out
    assert [row["seeds"] for row in results["table"]] == [2, 2, 0]
    assert results["table"][-1]["loss"] is None
    assert "failing.py:Fails" not in curves_of(results)


def test_no_answer_at_all_is_a_mistake(arguments: list[str], refused: Callable[..., str]) -> None:
    few = ("--agents", "uniform", "--seeds", "2", "max_tokens=32", "--out", "cmp")
    refused("compare", *arguments, *few, seen=("no search has an answer", "uniform-s0", "raise its limits", "tokens."))
    assert [one["seed"] for one in load_results(Path("cmp"))["searches"]] == [0, 1]


def test_rewards_go_to_agents_that_take_them(quick: dict[str, Any]) -> None:
    from autoprune.comparing.plan import ComparisonPlan
    from autoprune.config import load_config

    common = load_config(None, {"reward": "loss", "storage": "sqlite://", "study_name": "all"})
    searches = ComparisonPlan.of(common, ["random", "ppo"], [7]).searches()
    assert {name: (one.reward, one.study_name) for name, one in searches.items()} == {
        "random-s7": (None, "all-random-s7"),
        "ppo-s7": ("loss", "all-ppo-s7"),
    }
    assert searches["random-s7"].max_tokens == DEFAULT_TOKENS


def test_a_table_of_few_and_of_overflowed_searches() -> None:
    def one(agent: str, seed: int, loss: float | None) -> dict[str, Any]:
        numbers = {"search_loss": loss, "tokens": 10, "evals": 1, "seconds": 2.0}
        return {"agent": agent, "seed": seed, "loss": loss, "curve": [[10, 0.0, loss]], **numbers}

    failed = {"agent": "d", "seed": 0, "failed": "no"}
    searches = [failed, one("a", 0, 2.0), one("b", 0, None), one("b", 1, 1.0), one("c", 0, 1.0), one("c", 1, 1.5)]
    table = {row["agent"]: row for row in table_of(searches, Words())}
    assert [(row["rank"], agent) for agent, row in table.items()] == [(1, "c"), (2, "a"), (3, "b"), (4, "d")]
    assert table["a"]["sd"] is None
    assert (table["a"]["behind"], table["a"]["behind_error"]) == (0.75, None)
    assert (table["b"]["best"]["seed"], table["b"]["worst"]["loss"], table["b"]["behind"]) == (1, None, None)
    curves = curves_of({"searches": searches})
    assert curves["c"]["tokens"] == ([10.0], [1.125], [1.25], [1.375])
    assert curves["b"]["seconds"] == ([0.001], [1.0], [1.0], [1.0])
    assert "d" not in curves


def test_the_objective_remembers_what_it_would_have_answered() -> None:
    space = toy_space()
    objective = Objective(space, ToyScorer(space), Limits(tokens=32 * 60))
    rng, seen = np.random.default_rng(0), []
    objective.by_sequence([space.dense], [0], probe=True)
    assert objective.incumbents == []
    for _ in range(9):
        objective([space.sample(rng) for _ in range(3)], tokens=64)
        seen.append((objective.spent.tokens, objective.best))
    with pytest.raises(LimitReached):
        objective([space.sample(rng) for _ in range(9)], tokens=64)
    changes = [one for i, one in enumerate(seen) if i == 0 or one[1] != seen[i - 1][1]]
    assert [(tokens, proposal) for tokens, _, proposal in objective.incumbents][: len(changes)] == changes
    assert objective.incumbents[-1].proposal == objective.best
    assert objective.history[-1][2] == objective.loss(objective.best)[0]
    declared = next(p for p, _, _ in objective.archive() if p != objective.best)
    objective.declare(declared)
    assert objective.incumbents[-1] == Answer(objective.spent.tokens, objective.spent.seconds, declared)
    tokens = [one.tokens for one in objective.incumbents]
    assert tokens == sorted(set(tokens))


def test_thinned_keeps_both_ends() -> None:
    answers = [Answer(tokens, 0.0, (tokens,)) for tokens in range(100, 10_000, 100)]
    few = thinned(answers, 8)
    assert (few[0], few[-1]) == (answers[0], answers[-1])
    assert 6 <= len(few) <= 8
    assert thinned(answers[:3], 8) == answers[:3]


def test_ctrl_c_ends_the_comparison_and_it_goes_on(
    compared: Comparison, arguments: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoprune.evaluation.evaluator import Evaluator

    score, calls = Evaluator.score, itertools.count()

    def interrupted(self: Evaluator, *args: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return score(self, *args)

    chosen = ("--agents", "evolution,uniform", "--seeds", "1", "--out", "cmp", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "score", interrupted)
        answer = cli("compare", *arguments, *chosen)
    assert (answer.status, answer.out) == (130, "")
    assert answer.err.endswith("autoprune: interrupted: nothing is lost, `autoprune resume cmp` goes on.\n")
    assert json.loads(Path("cmp/evolution-s0/result.json").read_text())["interrupted"] is True
    assert load_results(Path("cmp"))["searches"] == []
    done = json.loads(cli("compare", *arguments, *chosen).out)
    whole = json.loads(to_json(compared.league))["searches"]
    assert untimed(done)["searches"] == untimed({"searches": [whole[0], whole[2]], "table": []})["searches"]


@pytest.mark.slow
def test_killed_it_ends_with_the_same_results(compared: Comparison, arguments: list[str], cli: Cli) -> None:
    out = Path("cmp").absolute()
    chosen = ("--agents", ",".join(AGENTS), "--seeds", "2", "--out", str(out))
    killed = command("compare", *arguments, *chosen, pause=0.02)
    with subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_scores(out / "evolution-s1", 5, process)
        process.kill()
    assert [one["seed"] for one in load_results(out)["searches"]] == [0, 0, 0]
    (out / "random-s0" / "curve.json").unlink()  # as if killed between the result and the curve
    written = {path: path.stat().st_mtime_ns for path in out.glob("*-s0/*.json*")}

    done = cli("resume", out, "--json")
    assert untimed(json.loads(done.out)) == untimed(json.loads(to_json(compared.league)))
    again = {path for path, before in written.items() if path.stat().st_mtime_ns != before}
    assert {path.parent.name for path in again} == {"random-s0"}
    assert out / "random-s0" / "journal.jsonl" not in again  # nothing was scored again
    ended = [line.split(":")[0] for line in done.err.splitlines() if line.startswith("search ")]
    assert ended == [f"search {number} of 6" for number in (2, 4, 5, 6)]
