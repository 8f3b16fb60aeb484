"""Quality against size, from the numbers of whole_command.py: one line an agent, with its spread over seeds.

    python benchmarks/quality_plot.py NUMBERS.json FIGURE.svg [--title TEXT]

NUMBERS.json is the last line that `whole_command.py --json` printed, of budgets `params=...`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import mean_sd
from curves import COLOURS, check_matplotlib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", type=Path)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    check_matplotlib()
    draw(json.loads(args.numbers.read_text(encoding="utf-8").splitlines()[-1]), args.figure, args.title)


def draw(numbers: dict[str, Any], path: Path, title: str) -> None:
    """Perplexity on the test text against the share of the prunable parameters that is kept."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "autoprune", "font.size": 10.5})
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for colour, agent in zip(COLOURS[1:], dict.fromkeys(case["agent"] for case in numbers["cases"]), strict=False):
        points: dict[float, list[float]] = {}
        for case in numbers["cases"]:
            if case["agent"] == agent:
                points.setdefault(float(case["budget"].partition("=")[2]), []).append(case["perplexity"])
        kept = sorted(points)
        means, errors = zip(*(mean_sd(points[share]) for share in kept), strict=True)
        axes.errorbar(kept, means, yerr=errors, label=agent, color=colour, marker="o", capsize=3)
    axes.axhline(numbers["dense_perplexity"], color="black", linewidth=1, linestyle=":", label="dense")
    axes.set_yscale("log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis("{x:g}")
    axes.set_xlabel("share of the prunable parameters that is kept")
    axes.set_ylabel("perplexity on the test text")
    axes.set_title(title)
    axes.grid(color="#e3e3e3", linewidth=0.6, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    dated: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}  # equal numbers, equal files
    figure.savefig(path, bbox_inches="tight", **dated)


if __name__ == "__main__":
    main()
