"""Criteria at the same uniform levels: nats per token on a text that calibration did not see.

python benchmarks/criteria.py --model DIR --data FILE --test FILE [--device cpu] [--json]
"""

import argparse
import json

from autoprune import registry
from autoprune.assembly import assemble
from autoprune.calibration.text import read_text, sequences
from autoprune.config import load_config, parse_override

FRACTIONS = (0.875, 0.75, 0.625, 0.5, 0.375)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--test", required=True)
    parser.add_argument("--test-sequences", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    settings = dict(parse_override(text) for text in args.set)
    table: dict[str, dict[str, list[float]]] = {}
    for criterion in registry.names("criteria"):
        config = load_config(
            None, {"model": args.model, "data": args.data, "device": args.device, "criterion": criterion, **settings}
        )
        assembly = assemble(config)
        tokens_NT = sequences(read_text(args.test), assembly.loaded.tokenizer, config.sequence_length)
        test = assembly.evaluator(tokens_NT[: args.test_sequences], "kl", "ce")
        policies = [assembly.space.dense]
        for fraction in FRACTIONS:
            policies.append(
                tuple(
                    next(i for i, kept in enumerate(unit.kept) if kept <= fraction * unit.groups)
                    for unit in assembly.space.units
                )
            )
        kl_P, ce_P = test.score_each(policies, range(test.n_sequences)).mean(axis=2)
        table[criterion] = {"kl": kl_P.tolist(), "ce": ce_P.tolist()}
    print(f"{'kept of every unit':20s}" + "".join(f"{c:>22s}" for c in table))
    for i, fraction in enumerate((1.0, *FRACTIONS)):
        cells = "".join(f"   KL {row['kl'][i]:6.3f} CE {row['ce'][i]:6.3f}" for row in table.values())
        print(f"{fraction:<20.3f}{cells}")
    if args.json:
        print(json.dumps({"kept": [1.0, *FRACTIONS], "criteria": table}))


if __name__ == "__main__":
    main()
