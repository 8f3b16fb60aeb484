"""What `benchmarks/parity.py` calls equal."""

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

LINES = [
    {"autoprune_journal": 1, "subject": "a", "id": "b"},
    {"levels": [0, 1], "sequences": [0, 3], "losses": [1.0, None], "seconds": 0.1},
    {"levels": [0, 1], "sequences": [0], "slopes": [[0.5, None], [0.25, 0.0]], "seconds": 0.2},
    {"mask": "0f", "sequences": [1], "losses": [2.0], "seconds": 0.3},
]
POLICY = {
    "units": [{"name": "0.mlp", "kept_groups": "0-3", "level": 1}],
    "costs": {"params": {"dense": 8.0, "policy": 4.0, "budget": 5.0}},
    "losses": {"search": 1.5, "validation": {"best": {"kl": 1.25}}},
}


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import parity  # type: ignore[import-not-found] # a script, on the path of this test alone

    return parity


def written(folder: Path, lines: list[dict[str, Any]], policy: dict[str, Any]) -> dict[str, Any]:
    """What a side answers about a run with this journal and this policy."""
    folder.mkdir()
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    return {"run": str(folder), "export": None, "finetune": None, "trained": None}


def difference(parity: Any, folder: Path, lines: Any = LINES, policy: Any = POLICY, tolerance: float = 0.0) -> str:
    """What is said of two runs, the second of which has these."""
    try:
        sides = written(folder / "old", LINES, POLICY), written(folder / "new", lines, policy)
        parity.Comparison(parity.Row("x", True), tolerance).runs(*sides)
    except parity.DifferenceError as error:
        return str(error)
    return ""


def test_seconds_headers_and_ends_are_no_results(parity: Any, tmp_path: Path) -> None:
    lines = [{**line, "seconds": 9.0, "subject": "other"} for line in LINES] + [{"ended": 3, "seconds": 1.0}]
    assert difference(parity, tmp_path, lines) == ""


@pytest.mark.parametrize(
    ("number", "key", "value", "said"),
    [
        (1, "losses", [1.0 + 2**-52, None], "losses in line 2"),
        (1, "losses", [1.0, 2.0], "losses in line 2"),
        (1, "levels", [1, 1], "levels in line 2"),
        (2, "slopes", [[0.5, None], [0.5, 0.0]], "slopes in line 3"),
        (3, "mask", "07", "mask in line 4"),
        (3, "sequences", [2], "sequences in line 4"),
    ],
)
def test_one_other_number_differs(parity: Any, tmp_path: Path, number: int, key: str, value: object, said: str) -> None:
    lines = [{**line, key: value} if i == number else line for i, line in enumerate(LINES)]
    assert difference(parity, tmp_path, lines).startswith(said)


def test_journals_of_other_lengths_and_other_policies_differ(parity: Any, tmp_path: Path) -> None:
    for name in ("lines", "units", "costs"):
        (tmp_path / name).mkdir()
    assert difference(parity, tmp_path / "lines", LINES[:-1]) == "3 scores, and 2 now"
    units = [{"name": "0.mlp", "kept_groups": "0-2,4"}]
    assert difference(parity, tmp_path / "units", policy=POLICY | {"units": units}) == "the policy"
    costs = {"params": {"dense": 8.0, "policy": 3.0, "budget": 5.0}}
    assert difference(parity, tmp_path / "costs", policy=POLICY | {"costs": costs}) == "costs in params"


def test_a_tolerance_is_relative(parity: Any, tmp_path: Path) -> None:
    lines = [LINES[0], {**LINES[1], "losses": [1.0 + 1e-7, None]}, *LINES[2:]]
    assert difference(parity, tmp_path, lines, tolerance=1e-6) == ""


def test_only_known_changes_excuse_a_row(parity: Any) -> None:
    assert parity.Row("x", False, changes=["uniform"]).excused
    assert not parity.Row("x", True, changes=["uniform"]).excused
    assert not parity.Row("x", False).excused


def test_searches_name_known_changes_and_an_agent_of_each_kind(parity: Any) -> None:
    for search in parity.SEARCHES.values():
        assert set(search.touches) <= set(parity.CHANGES)
    agents = {search.settings(Path("x"))["agent"] for search in parity.SEARCHES.values()}
    wanted = {"evolution", "evopress", "ppo", "dqn", "policy-gradient", "policy-gradient-masks", "nsga2", "additive"}
    assert wanted <= agents
