"""The report of a run: made of what is there, escaped, self-contained, well-formed, the same twice."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.comparing.results import table_of
from autoprune.config import SearchConfig
from autoprune.drawing import scales
from autoprune.drawing.bars import Bar, bar_chart
from autoprune.drawing.charts import Points, Series, line_chart, scatter_chart
from autoprune.drawing.heatmap import heatmap
from autoprune.drawing.markup import tag, text
from autoprune.errors import UserError
from autoprune.journal import Journal, Score
from autoprune.level import group_levels
from autoprune.mask import Mask
from autoprune.policy import Cost, Policy, UnitPolicy, ranges, to_json
from autoprune.reports.page import write_report
from autoprune.reports.run import read_run
from autoprune.reports.searching import front
from autoprune.reports.sensitivities import measured
from autoprune.space import Proposal, SearchSpace, Unit
from autoprune.space_file import save_space
from autoprune.testing.toys import ToyScorer, counts, toy_space, toy_statistics
from autoprune.wording import Words

quick = settings(max_examples=40)  # the machine may be busy

NASTY = "/models/<script>alert(1)</script>\"quoted\" & 'single'\x00"


# -- runs to report on -------------------------------------------------------------------------------------------------


def searched(space: SearchSpace, candidates: int = 30, probes: bool = True, losses: float = 0.0) -> list[Score]:
    """Scores of a small search; `losses` is added to each."""
    rng, scorer = np.random.default_rng(0), ToyScorer(space)
    proposals = [space.uniform(), *(space.sample(rng) for _ in range(candidates))]
    asked = [(proposal, tuple(range(4))) for proposal in proposals]
    if probes:
        singles = [(0,) * u + (level,) + (0,) * (len(space.units) - u - 1) for u, level in _single(space)]
        asked = [*((probe, (0,)) for probe in singles), *asked]
    return [
        Score(p, seen, (scorer.score([p], seen)[0] + losses).tolist(), 0.5 * i) for i, (p, seen) in enumerate(asked)
    ]


def _single(space: SearchSpace) -> list[tuple[int, int]]:
    return [(u, level) for u, n in enumerate(space.n_levels_U) for level in range(1, n)]


def make_run(
    path: Path,
    space: SearchSpace | None = None,
    scores: Sequence[Score] | None = None,
    finished: bool = True,
    **settings: object,
) -> Path:
    """A run's directory as a search leaves it."""
    space = toy_space() if space is None else space
    scores = searched(space) if scores is None else scores
    path.mkdir()
    SearchConfig(**{"sequence_length": 32, **settings}).save(path / "config.yaml")
    save_space(path / "space.json", space, toy_statistics(space))
    journal = Journal(path / "journal.jsonl", "toy")
    journal.append(scores)
    journal.close()
    if finished:
        candidates = [s for s in scores if space.feasible(s.proposal) and math.isfinite(sum(s.losses))]
        finish(path, space, min(candidates, key=lambda score: float(np.mean(score.losses))))
    return path


def finish(path: Path, space: SearchSpace, best: Score) -> None:
    """The two files of a finished run."""
    kept = space.levels_of(best.proposal)
    levels = [None] * len(kept) if isinstance(best.proposal, Mask) else best.proposal
    units = [
        UnitPolicy(
            name=unit.name, kind=unit.kind, block=unit.block, groups=unit.groups, level=level, kept=k.kept,
            density=k.density, kept_groups=ranges(list(range(k.kept))),
        )
        for unit, k, level in zip(space.units, kept, levels, strict=True)
    ]  # fmt: skip
    costs = {
        m: Cost(dense=space.cost(space.dense, m), policy=space.cost(best.proposal, m), budget=space.budgets.get(m))
        for m in space.costs
    }
    losses = {"search": float(np.mean(best.losses)), "search_tokens": 32 * len(best.losses), "validation": {}}
    provenance = {"model": "toy", "model_hash": "abc<def>", "versions": {"torch": "2.0", "python": "3.11"}}
    policy = Policy(schema="autoprune.policy/2", units=units, costs=costs, losses=losses, provenance=provenance)
    policy.save(path / "policy.json")
    row = {"validation_ce": 2.0, "perplexity": 7.4, "params": 1000, "macs": 2000.0, "tokens_per_second": 100.0}
    table = [
        {"name": name, "validation_loss": v, **row} for name, v in (("dense", -1e-6), ("uniform", 2.0), ("best", 1))
    ]
    history = [[0, 0.1, None], *([100 * i, 0.5 * i, 3.0 / i] for i in range(1, 20))]
    result = {"table": table, "spent": {"evals": 70, "tokens": 4000, "seconds": 75.0}, "history": history}
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")


def masked(space: SearchSpace) -> SearchSpace:
    """The same with what every number of groups costs."""
    rows = [[unit.params(k) for k in range(unit.groups + 1)] for unit in space.units]
    costs = {"params": [[unit.params(k) for k in counts(unit)] for unit in space.units]}
    return SearchSpace(space.units, costs, space.budgets, {"params": rows})


def report(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


# -- what every page must be -------------------------------------------------------------------------------------------


class Balance(HTMLParser):
    """Tags that open and close in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.headings: list[int] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        assert not {name for name, _ in attrs if name.startswith("on") or name in ("src", "href", "xlink:href")}
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Balance:
    """Raise unless a page is well-formed, self-contained, accessible and small."""
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert not parser.names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style
    assert "url(" not in page
    assert parser.headings[0] == 1
    assert parser.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(parser.headings))
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert not re.search(
            r"(?i)\b(nan|inf)\b", " ".join(v for e in root.iter() for k, v in e.items() if k != "aria-label")
        )
    assert '<html lang="en">' in page
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; img-src data:" in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert len(page.encode()) < 500_000
    return parser


def sections(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_a_finished_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = report(run)
    check(page)
    assert sections(page) == [
        "Validation", "Search", "Kept by depth", "Cost and loss", "Sensitivities", "Costs by unit", "Layers",
        "Configuration", "Provenance", "Reproduce",
    ]  # fmt: skip
    assert "not finished" not in page
    assert "−50.0\N{NO-BREAK SPACE}%" in page
    assert "1 min 15 s" in page
    assert "met; at most 50.0" in page
    assert "abc&lt;def&gt;" in page
    assert "differ from dense in one unit alone" in page
    assert "-0.0000" not in page


def test_the_same_bytes_twice_and_to_another_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first = write_report(run)
    second = write_report(run, tmp_path / "elsewhere.html")
    assert first == run / "report.html"
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for out in (tmp_path / "nowhere" / "x.html", run / "config.yaml" / "x.html"):
        with pytest.raises(UserError, match="there is no folder"):
            write_report(run, out)


def test_a_run_at_work(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=False)
    journal = run / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"levels":[0,')  # a line that is being written
    before = journal.read_bytes()
    page = report(run)
    check(page)
    assert "This run is not finished." in page
    assert "best policy so far" in page
    assert "Validation" not in sections(page)
    assert {"Search", "Kept by depth", "Layers"} <= set(sections(page))
    assert journal.read_bytes() == before


def test_the_best_so_far_is_the_objectives(tmp_path: Path) -> None:
    space = toy_space()
    rng = np.random.default_rng(1)
    few, many, worse = (space.sample(rng) for _ in range(3))
    scores = [Score(few, (0,), [0.1], 1.0), Score(many, (0, 1), [0.5, 0.7], 2.0), Score(worse, (0, 1), [1.0, 1.0], 3.0)]
    best = read_run(make_run(tmp_path / "run", space, scores, finished=False)).best
    assert best is not None
    assert (best.numbers, best.sequences) == (many, 2)
    assert best.loss == pytest.approx(0.6)


@pytest.mark.parametrize("scores", [[], [Score((0,) * 10, (0,), [0.0], 1.0)]])
def test_a_run_that_has_scored_nothing_within_the_budgets(tmp_path: Path, scores: list[Score]) -> None:
    run = make_run(tmp_path / "run", scores=scores, finished=False)
    page = report(run)
    check(page)
    assert "No policy within the budgets has been scored yet." in page
    (run / "journal.jsonl").unlink()
    assert "No policy within the budgets" in report(run)


def test_masks(tmp_path: Path) -> None:
    space = masked(toy_space())
    rng = np.random.default_rng(0)
    proposals: list[Proposal] = []
    while len(proposals) < 20:
        mask = Mask.pack([rng.random(g) < 0.4 for g in space.groups])
        proposals += [mask] if space.feasible(mask) else []
    scores = [Score(p, (0, 1), [1.0 + 0.1 * i, 2.0], float(i)) for i, p in enumerate(proposals)]
    page = report(make_run(tmp_path / "run", space, scores))
    check(page)
    assert ">mask</td>" in page
    assert "errors of the units’ outputs" in page  # no single units were scored
    unfinished = read_run(make_run(tmp_path / "other", space, scores, finished=False))
    assert unfinished.best is not None
    assert unfinished.best.keys == space.keys(proposals[0])
    assert unfinished.best.numbers is None


def test_whatever_a_user_controls_is_escaped(tmp_path: Path) -> None:
    toy = toy_space()
    units = [
        Unit(f"{u.block}.<b>{NASTY}", "<i>" + NASTY, u.block, u.groups, u.levels, u.group_params) for u in toy.units
    ]
    metric = "x.py:<u>\"joules'"
    costs = {metric: [[float(unit.params(k)) for k in counts(unit)] for unit in units]}
    space = SearchSpace(units, costs, {metric: toy.budgets["params"]})
    settings: dict[str, Any] = {"model": NASTY, "data": NASTY, "loss": NASTY, "agent": NASTY}
    settings["agent_options"] = {NASTY: NASTY}
    run = make_run(tmp_path / "<script>x", space, budgets={metric: 0.5}, **settings)
    for page in (report(run), report(make_run(tmp_path / "y<script>", space, finished=False, **settings))):
        parser = check(page)
        assert not parser.names & {"b", "u"}
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;quoted&quot; &amp; &#x27;single&#x27;\ufffd" in page


def test_infinite_losses(tmp_path: Path) -> None:
    scores = searched(toy_space())
    broken = [Score(s.proposal, s.sequences, [math.inf] * len(s.losses), s.seconds) for s in scores]
    mixed = [b if i % 3 == 0 else s for i, (s, b) in enumerate(zip(scores, broken, strict=True))]
    page = report(make_run(tmp_path / "mixed", scores=mixed))
    check(page)
    assert 'class="overflow"' in page
    check(report(make_run(tmp_path / "all", scores=broken, finished=False)))
    run = make_run(tmp_path / "table")
    result = json.loads((run / "result.json").read_text())
    for row in result["table"]:
        row |= {"validation_loss": None, "validation_ce": None, "perplexity": None}
    (run / "result.json").write_text(json.dumps(result | {"history": [[1, 1.0, None]]}))
    page = report(run)
    check(page)
    assert "∞" in page


def test_a_long_run_of_a_deep_network_is_small(tmp_path: Path) -> None:
    space = toy_space(units=160, levels=9, latency=0.6)
    rng = np.random.default_rng(0)
    proposals = [space.uniform(), *(tuple(rng.integers(9, size=160).tolist()) for _ in range(4000))]
    single = [(0,) * u + (level,) + (0,) * (159 - u) for u, level in _single(space)]
    scores = [Score(p, (0, 1), rng.exponential(1, 2).tolist(), i / 7) for i, p in enumerate([*single, *proposals])]
    run = make_run(tmp_path / "run", space, scores)
    check(report(run))


# -- the page of a comparison ------------------------------------------------------------------------------------------


def make_comparison(path: Path, **changes: object) -> Path:
    """A comparison of two agents and a third that failed, as `league.json` has it."""
    searches: list[dict[str, object]] = []
    for agent, base in (("evolution", 1.0), ("tpe", 1.2)):
        for seed in range(2):
            loss = base + 0.1 * seed
            outcome = {"agent": agent, "seed": seed, "run": f"{agent}-s{seed}", "loss": loss, "ce": 3.0}
            outcome |= {"perplexity": None, "params": 1e6, "macs": 2e6, "search_loss": loss, "search_tokens": 64}
            outcome |= {"tokens": 640, "evals": 10, "seconds": 3.0, "policy": f"{agent}-s{seed}/policy.json"}
            searches.append(outcome | {"curve": [[64, 0.3, loss + 0.5], [320, 1.5, None], [640, 3.0, loss]]})
    searches.append({"agent": NASTY, "seed": 0, "run": f"{NASTY}-s0", "failed": f"no loss of {NASTY}"})
    reference = {"loss": 0.0, "ce": 2.0, "perplexity": 7.4, "params": 2e6, "macs": 4e6}
    results: dict[str, object] = {
        "schema": "autoprune.league/1", "config": SearchConfig(model=NASTY, max_tokens=640).model_dump(),
        "agents": ["evolution", "tpe", NASTY], "seeds": [0, 1],
        "references": {"dense": reference, "uniform": reference},
        "searches": searches, "table": table_of(searches, Words()),
    }  # fmt: skip
    path.mkdir()
    (path / "league.json").write_text(to_json(results | changes))
    return path


def test_a_comparison(tmp_path: Path) -> None:
    page = report(make_comparison(tmp_path / "cmp"))
    check(page)
    assert sections(page) == ["Agents", "Learning curves", "Searches", "Configuration", "Go on"]
    assert page.index(">evolution<") < page.index(">tpe<"), "ranked"
    assert "+0.2000 ± " in page
    assert "<script" not in page
    assert "failed: no loss of" in page
    assert "5 of 6" in page
    assert page.count("<svg") == 2
    assert page == report(tmp_path / "cmp")


def test_a_comparison_of_agents_that_failed(tmp_path: Path) -> None:
    searches = [{"agent": "tpe", "seed": 0, "run": "tpe-s0", "failed": "no answer"}]
    run = make_comparison(tmp_path / "cmp", searches=searches, table=table_of(searches, Words()), references={})
    assert "Learning curves" not in sections(report(run))
    check(report(run))


@pytest.mark.parametrize("change", [{"schema": 2}, {"table": []}, {"config": None}, {"searches": [{}]}])
def test_a_damaged_league_is_a_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"league\.json"):
        report(make_comparison(tmp_path / "cmp", **change))


def test_needs_no_network() -> None:
    code = (
        "import sys\nimport autoprune.reports.page\n"
        "print(*sorted({'torch', 'transformers', 'matplotlib', 'rich', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def _remove(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).unlink()


def _write(name: str, content: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_remove("config.yaml"), "is no run: it has no config.yaml"),
        (_remove("space.json"), "has no space.json: it is still preparing, or an earlier version.*autoprune resume"),
        (_write("space.json", "{}"), "damaged"),
        (_write("journal.jsonl", "{}\n"), "line 1 of the journal .* is damaged"),
        (_write("journal.jsonl", '{"autoprune_journal": 1}\n[1]\n'), "line 2 of the journal .* is damaged"),
        (_write("journal.jsonl", '{"autoprune_journal": 1}\n{"levels":[0],"sequences":[],"losses":[],"seconds":1}\n'),
         "a score of no sequence"),
        (_write("journal.jsonl", '{"autoprune_journal": 1}\n{"levels":[0],"sequences":[0],"losses":[1],"seconds":1}\n'),
         "do not fit a space"),
        (_write("policy.json", "{}"), "the policy .* is damaged"),
        (_write("result.json", '{"table": 1}'), "result.json' is damaged"),
    ],
)  # fmt: skip
def test_damaged_runs_get_a_sentence(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    run = make_run(tmp_path / "run")
    damage(run)
    with pytest.raises(UserError, match=said):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_policy_of_other_units_or_levels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    save_space(run / "space.json", toy_space(levels=3))
    (run / "journal.jsonl").unlink()
    with pytest.raises(UserError, match="other units"):
        write_report(run)
    toy = toy_space()
    units = [
        Unit(u.name, u.kind, u.block, u.groups, group_levels(u.groups, (u.groups, 0)), u.group_params)
        for u in toy.units
    ]
    costs = {"params": [[unit.params(k) for k in counts(unit)] for unit in units]}
    save_space(run / "space.json", SearchSpace(units, costs, toy.budgets))
    with pytest.raises(UserError, match="other levels"):
        write_report(run)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_sensitivities_are_those_of_single_units(tmp_path: Path) -> None:
    space = toy_space()
    run = read_run(make_run(tmp_path / "run", space))
    found = measured(run)
    assert set(found) == {(u, space.units[u].levels[level].kept) for u, level in _single(space)}


@quick
@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=30))
def test_nothing_beats_the_front(places: list[tuple[float, float]]) -> None:
    ahead = front(places)
    assert bool(ahead) == bool(places)
    for i in ahead:
        assert not any(cost <= places[i][0] and loss < places[i][1] for cost, loss in places)
    assert [places[i][0] for i in ahead] == sorted({places[i][0] for i in ahead})


anything = st.floats(allow_nan=True, allow_infinity=True)
positive = st.floats(1e-90, 1e90)


@quick
@given(st.lists(st.tuples(anything, anything, anything, anything)), st.booleans(), st.booleans(), st.booleans())
def test_charts_of_any_numbers_are_well_formed(
    rows: list[tuple[float, float, float, float]], log_x: bool, log_y: bool, step: bool
) -> None:
    x, y, low, high = ([row[i] for row in rows] for i in range(4))
    series = [Series("one <", x, y, low, high), Series("two", x, low)]
    titles = [["&"] * len(rows)] * 2
    drawn = [
        line_chart(
            series, "lines", "x", "y", log_x=log_x, log_y=log_y, step=step, references=[("r", y[0])] if y else []
        ),
        scatter_chart(
            [Points(x, y, titles[0], "c0")], "dots", "x", "y", log_y=log_y, front=list(zip(x, y, strict=True))
        ),
        bar_chart([Bar(str(i), value, "'", 1.0, i) for i, value in enumerate(y)], "bars", "x", "y"),
        heatmap(["a", "b"], ["c"] * len(rows), [x, y], titles, "heat", "x", "y"),
    ]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        for element in root.iter():
            for key in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "width", "height"):
                assert -100 <= float(element.get(key, 0)) <= 1000
            assert "nan" not in element.get("d", "")
            assert "inf" not in element.get("d", "")


def test_a_chart_of_many_series_has_bands_and_all_their_colours() -> None:
    x = [1.0, 10.0, 100.0]
    series = [Series(f"s{i}", x, [i + 1.0] * 3, [i + 0.5] * 3, [i + 1.5] * 3) for i in range(11)]
    svg = line_chart(series, "many", "tokens", "loss", log_x=True)
    root = ElementTree.fromstring(svg)
    classes = [element.get("class", "") for element in root.iter()]
    assert classes.count("band") == classes.count("line") == 11
    assert {f"c{i}" for i in range(8)} | {"c0 second", "c2 second"} <= set(classes)
    assert {"1", "10", "100"} <= {element.text for element in root.iter("text")}


@quick
@given(st.lists(anything), st.booleans(), st.floats(0, 0.2))
def test_an_extent_holds_what_is_drawable(values: list[float], log: bool, pad: float) -> None:
    low, high = scales.extent(values, log, pad)
    assert math.isfinite(low) and math.isfinite(high) and low < high  # noqa: PT018
    for value in values:
        if scales.drawable(value) and (not log or value > scales.TINY):
            assert low <= value <= high


@quick
@given(st.floats(-1e90, 1e90), positive, st.integers(3, 9))
def test_ticks_are_few_round_and_within(low: float, span: float, count: int) -> None:
    low, high = scales.extent([low, low + span])
    found = scales.ticks(low, high, count)
    assert 1 <= len(found) <= count + 1
    assert all(a < b for a, b in pairwise(found))
    slack = 1e-6 * (high - low)
    assert all(low - slack <= value <= high + slack for value in found)
    assert len(scales.labels(found)) == len(found)


@quick
@given(st.floats(-1e6, 1e6), st.floats(1e-2, 1e6), st.integers(3, 9))
def test_labels_tell_ticks_apart(low: float, span: float, count: int) -> None:
    found = scales.ticks(low, low + span, count)
    assert len(set(scales.labels(found))) == len(found)


@quick
@given(positive, st.floats(1.001, 1e20), st.integers(3, 9))
def test_logarithmic_ticks_are_few_and_within(low: float, ratio: float, count: int) -> None:
    found = scales.log_ticks(low, low * ratio, count)
    assert len(found) <= count + 1
    assert all(a < b for a, b in pairwise(found))
    assert all(low * (1 - 1e-6) <= value <= low * ratio * (1 + 1e-6) for value in found)


@quick
@given(st.floats(-1e90, 1e90), positive, st.lists(anything.filter(lambda v: not math.isnan(v)), min_size=2))
def test_a_scale_keeps_order_and_stays_on_the_canvas(low: float, span: float, values: list[float]) -> None:
    scale = scales.Scale(*scales.extent([low, low + span]), 10.0, 90.0)
    places = [scale(value) for value in sorted(values)]
    assert all(10 <= place <= 90 for place in places)
    assert places == sorted(places)


@quick
@given(st.integers(0, 5000), st.integers(2, 500))
def test_thinning_keeps_both_ends(count: int, at_most: int) -> None:
    kept = scales.thin(count, at_most)
    assert len(kept) == len(set(kept)) == min(count, at_most)
    assert kept == sorted(kept)
    assert not count or (kept[0], kept[-1]) == (0, count - 1)


@quick
@given(st.text())
def test_any_text_is_escaped(value: str) -> None:
    element = ElementTree.fromstring(tag("p", value, title=value))
    assert "<" not in text(value)
    assert element.tag == "p"
    assert len(element) == 0
