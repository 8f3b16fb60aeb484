"""How the search went: its curve, and the trade-off between cost and loss in everything that it scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from autoprune import live
from autoprune.drawing.charts import Points, Series, legend, line_chart, scatter_chart
from autoprune.drawing.markup import Markup
from autoprune.drawing.scales import drawable, thin
from autoprune.drawing.tables import count, figure, figures, loss, note, section
from autoprune.reports.record import Run, Scored

LOG_FROM = 20  # times as much at the end as at the start: early steps would be squeezed together
DECENT = 0.5  # of the sequences of the best: a mean over fewer is not comparable
MARKS = 250  # of one kind; more lie on one another


def curve(run: Run) -> Markup | None:
    """The best loss against tokens and against seconds."""
    history = [(tokens, seconds, loss) for tokens, seconds, loss in run.history if drawable(loss)]
    if not history:
        return None
    tokens, seconds, losses = zip(*history, strict=True)
    reference = [
        (f"uniform, {count(len(one.losses), run.words.sample)}", one.loss)
        for one in run.scored
        if one.keys == run.uniform
    ]
    y_label = f"loss of the best so far ({run.unit_of_loss})"
    drawn = [
        line_chart(
            [Series("best so far", xs, losses)],
            f"Loss of the best policy so far against {name}, from {losses[0]:.4g} to {losses[-1]:.4g}",
            name, y_label, log_x=xs[0] > 0 and xs[-1] / xs[0] > LOG_FROM, step=True, references=reference,
        )
        for name, xs in ((f"{run.words.items} scored", tokens), ("seconds of search", seconds))
    ]  # fmt: skip
    return section(
        "Search",
        note(
            "Agents compare on samples that grow, so this is the loss on the agent’s own sample at that time: it can "
            "rise when the sample does."
        ),
        figures(*(figure(None, chart) for chart in drawn)),
    )


@dataclass(frozen=True)
class _Dot:
    one: Scored
    cost: float

    @property
    def place(self) -> tuple[float, float]:
        return self.cost, self.one.loss


def trade_off(run: Run) -> Markup | None:
    """Cost against loss of everything scored, with the front: a chart for each metric, the budgeted ones first."""
    within = [one for one in run.scored if one.feasible and _decent(run, one) and drawable(one.loss)]
    probes = [one for one in run.scored if not one.feasible and drawable(one.loss)]
    if not within:
        return None
    first, *others = sorted(run.space.costs, key=lambda metric: metric not in run.space.budgets)
    drawn = [
        figure(f"{live.shown(metric)}, within the budgets", _chart(run, metric, within, []))
        for metric in (first, *others)
    ]
    if probes:
        drawn.append(figure(f"{first}, with probes that break a budget", _chart(run, first, within, probes)))
    hidden = sum(1 for one in run.scored if one.feasible) - len(within)
    shown = [("best", "c1"), ("candidates", "c0 seen")]
    shown += [("uniform", "c2")] if any(one.keys == run.uniform for one in within) else []
    shown += [("probes", "probe")] if probes else []
    return section(
        "Cost and loss",
        note(
            f"Each dot is a policy: its cost as a share of dense, and its mean loss on the {run.words.sample}s that it "
            "was scored on. The line is the front: no other comparable policy is both cheaper and better."
            + _caveats(run, hidden, max(len(within), len(probes))),
        ),
        figures(*drawn),
        legend(shown),
    )


def _caveats(run: Run, hidden: int, most: int) -> str:
    said = ""
    if hidden:
        said += f" Left out: {count(hidden, 'candidate')} scored on less than half of the best’s {run.words.sample}s."
    if most > MARKS:
        said += f" At most {MARKS} of a kind are drawn."
    return said


def front(places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of those (cost, loss) that no other beats in both, ascending in cost."""
    found: list[int] = []
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        if not found or places[i][1] < places[found[-1]][1]:
            found.append(i)
    return found


def _chart(run: Run, metric: str, within: list[Scored], probes: list[Scored]) -> Markup:
    costs, total = run.costs(metric), run.space.total
    dense = run.space.cost(run.space.dense, metric) or 1.0

    def dots(scored: list[Scored]) -> list[_Dot]:
        return [
            _Dot(one, 100 * total(metric, [cost[key] for cost, key in zip(costs, one.keys, strict=True)]) / dense)
            for one in scored
        ]

    points = partial(_points, run, metric)
    candidates = dots(within)
    comparable = [*candidates, *dots([one for one in probes if _decent(run, one)])]
    ahead = [comparable[i] for i in front([dot.place for dot in comparable])]
    log_y = bool(probes) and min(one.loss for one in (*within, *probes)) > 0
    bound = run.space.budgets.get(metric)
    return scatter_chart(
        [
            points(dots(probes), "probe", 2.6),
            points(candidates, "c0 seen", 3.4),
            points([dot for dot in ahead if dot.one.feasible], "c0 onfront", 4.0),
            points([dot for dot in candidates if dot.one.keys == run.uniform], "c2 best", 5.5),
            points([dot for dot in candidates if run.best and dot.one.keys == run.best.keys], "c1 best", 6.5),
        ],
        f"{live.shown(metric)} against loss: {len(within)} candidates, {len(probes)} probes, "
        f"{len(ahead)} of them on the front",
        f"{live.shown(metric)} (% of dense)",
        f"loss ({run.unit_of_loss}{', logarithmic' if log_y else ''})",
        log_y=log_y,
        front=[dot.place for dot in ahead],
        bound=("budget", 100 * bound / dense) if probes and bound is not None else None,
    )


def _points(run: Run, metric: str, dots: list[_Dot], class_: str, radius: float) -> Points:
    shown = [dots[i] for i in thin(len(dots), MARKS)]
    samples = [count(len(dot.one.losses), run.words.sample) for dot in shown]
    titles = [
        f"loss {loss(dot.one.loss)} on {seen}, {live.shown(metric)} {dot.cost:.2f} % of dense"
        for dot, seen in zip(shown, samples, strict=True)
    ]
    return Points([dot.cost for dot in shown], [dot.one.loss for dot in shown], titles, class_, radius)


def _decent(run: Run, one: Scored) -> bool:
    return run.best is not None and len(one.losses) >= DECENT * run.best.sequences
