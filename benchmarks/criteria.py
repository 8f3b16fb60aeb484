"""Criteria at the same uniform levels: nats per token, or accuracy of images, on what calibration did not see.

python benchmarks/criteria.py --model DIR --data FILE --test FILE [--device cpu] [--criteria obs,taylor] [--json]

Of a network that reads images FILEs are .npz. A criterion that the network does not have is told and left out.
"""

import argparse
import json
import sys

import torch
from torch import Tensor

from autoprune import registry
from autoprune.assembly import Assembly, assemble
from autoprune.config import load_config
from autoprune.data.images import read_images
from autoprune.data.text import read_texts
from autoprune.errors import UserError
from autoprune.networks.images import ImageView
from autoprune.written import parse_override

FRACTIONS = (0.875, 0.75, 0.625, 0.5, 0.375)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--test", required=True)
    parser.add_argument("--test-sequences", type=int, default=64)
    parser.add_argument("--criteria", default=",".join(registry.names("criteria")))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    given = {"model": args.model, "data": args.data, "device": args.device}
    given |= dict(parse_override(text) for text in args.set)
    table: dict[str, dict[str, list[float]]] = {}
    for criterion in args.criteria.split(","):
        try:
            assembly = assemble(load_config(None, given | {"criterion": criterion}))
        except UserError as error:
            print(f"# {criterion}: {error}", file=sys.stderr)
            continue
        table[criterion] = measured(assembly, tests(assembly, args.test)[: args.test_sequences])
    print(f"{'kept of every unit':20s}" + "".join(f"{c:>22s}" for c in table))
    for i, fraction in enumerate((1.0, *FRACTIONS)):
        rows = (" ".join(f"{name.upper()} {values[i]:6.3f}" for name, values in row.items()) for row in table.values())
        print(f"{fraction:<20.3f}" + "".join(f"{cells:>22s}" for cells in rows))
    if args.json:
        print(json.dumps({"kept": [1.0, *FRACTIONS], "criteria": table}))


def tests(assembly: Assembly, path: str) -> Tensor:
    """Sequences of a text, or samples of images, which take the place of those of the search."""
    config, view = assembly.config, assembly.view
    if not isinstance(view, ImageView):
        return read_texts(path).tokens(assembly.loaded.tokenizer, config.sequence_length)
    view.images = read_images(path, view.images.mean.flatten().tolist(), view.images.std.flatten().tolist()).to(
        config.device
    )
    count = len(view.images) // config.sequence_length
    return torch.arange(count * config.sequence_length).view(count, -1)


def measured(assembly: Assembly, tokens_NT: Tensor) -> dict[str, list[float]]:
    """Name of a loss -> of dense and of every fraction."""
    losses = ("kl", "error" if isinstance(assembly.view, ImageView) else "ce")
    test, policies = assembly.evaluator(tokens_NT, *losses), [assembly.space.dense]
    for fraction in FRACTIONS:
        units = assembly.space.units
        policies.append(
            tuple(next(i for i, one in enumerate(u.levels) if one.kept <= fraction * u.groups) for u in units)
        )
    values_LP = test.score_each(policies, range(test.n_sequences)).mean(axis=2)
    return {name: values_P.tolist() for name, values_P in zip(losses, values_LP, strict=True)}


if __name__ == "__main__":
    main()
