"""Blocks and levels streamed from the host's memory: what scoring costs with less of the device's memory.

    python benchmarks/streaming.py [--device cpu|cuda] [--device-memory 8GiB] [--policies 1,8,32] [--sequences 4]
        [--length 128] [--batch 1] [--hidden 256 --layers 8 --intermediate 688 --heads 4 --kv-heads 4 --vocab 2000]
        [--levels 9] [--repeats 3] [--json]

A network of 7 billion parameters on a GPU:

    python benchmarks/streaming.py --device cuda --device-memory 8GiB --sequences 16 --length 512 --batch 4
        --hidden 4096 --layers 32 --intermediate 11008 --heads 32 --kv-heads 32 --vocab 32000 --round-to 128

A Llama with random weights, and a level store whose levels are prefixes of them: neither changes what is computed or
moved. Batches of random policies are scored with everything on the device, then with `--device-memory` (none: half of
the weights, and the activations). Seconds are the fastest of the repeats, after a score that warms up and computes the
dense network's references. The peak is torch's own count of allocated bytes on a GPU; on a CPU, where device memory is
a fiction, the streamer's, and without it the sum of weights, levels and activations. Losses of both are compared:
`difference` is the largest, 0 on a CPU.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command
from numpy.typing import NDArray
from safetensors.torch import save_file

from autoprune.assembly import space_of, units_of
from autoprune.calibration.losses import KullbackLeibler
from autoprune.config import SearchConfig
from autoprune.evaluation.evaluator import Evaluator
from autoprune.levels.placing import Placer
from autoprune.levels.store import LevelStore
from autoprune.networks.blocks import BlockView
from autoprune.networks.loading import family_of
from autoprune.networks.streaming import StreamedView
from autoprune.networks.text import TextView
from autoprune.space import Levels, SearchSpace, Unit
from autoprune.unit_statistics import UnitStatistics
from autoprune.written import parse_size

MIB = 2**20


@dataclass
class Measured:
    """Of one way to score, for each batch size: seconds a policy, bytes moved a score; and the peak of memory."""

    peak_bytes: int = 0
    seconds: dict[int, float] = field(default_factory=dict)
    sent_bytes: dict[int, float] = field(default_factory=dict)
    losses: dict[int, NDArray[np.float64]] = field(default_factory=dict)


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    model = build(args)
    view = TextView(model, family_of("llama"))
    config = SearchConfig(levels=args.levels, sequence_length=args.length, round_to=args.round_to)
    space = space_of(units_of(view, config), config)
    rng = np.random.default_rng(0)
    batches = {int(n): [space.sample(rng) for _ in range(int(n))] for n in args.policies.split(",")}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        write_store(Path(folder), view, space.units)
        tell_sizes(args, view, Path(folder))
        forget(args.device)
        whole = measure(args, view, space, LevelStore(Path(folder), space.units, args.device), batches)
        memory = parse_size(args.device_memory) if args.device_memory else default_memory(args, view)
        whole_view = TextView(model.to("cpu"), family_of("llama"))
        del view
        forget(args.device)
        streamed_view = StreamedView(whole_view, args.device, memory, args.batch, args.length)
        streamed = measure(args, streamed_view, space, LevelStore(Path(folder), space.units), batches)
    report(args, memory, whole, streamed)


def build(args: argparse.Namespace) -> Any:
    """The network on the device, where random numbers are cheap."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.hidden, intermediate_size=args.intermediate,
        num_hidden_layers=args.layers, num_attention_heads=args.heads, num_key_value_heads=args.kv_heads,
        max_position_embeddings=max(2048, args.length), tie_word_embeddings=False,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, args.dtype or ("float32" if args.device == "cpu" else "bfloat16")))
    try:
        with torch.device(args.device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def write_store(folder: Path, view: BlockView, units: Sequence[Unit]) -> None:
    """A finished level store in which nothing is sorted or reconstructed."""
    for unit, width in zip(units, (width for row in view.widths for width in row), strict=True):
        tensors = {"order": torch.arange(unit.groups)}
        size = width.consumer_weight.shape[1] // unit.groups
        for number, level in enumerate(unit.levels):
            if 0 < level.kept < unit.groups:
                tensors[f"level.{number}"] = width.consumer_weight[:, : level.kept * size].cpu().contiguous()
        save_file(tensors, folder / f"{unit.name}.safetensors")
    nothing = asdict(UnitStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ()))
    (folder / "manifest.json").write_text(json.dumps({"statistics": [nothing] * len(units)}))


def measure(
    args: argparse.Namespace, view: BlockView, space: SearchSpace, store: LevelStore, batches: dict[int, list[Levels]]
) -> Measured:
    """Score every batch of policies."""
    generator = torch.Generator().manual_seed(1)
    tokens_NT = torch.randint(args.vocab, (args.sequences, args.length), generator=generator).to(args.device)
    evaluator = Evaluator(Placer(view, space, store), tokens_NT, [KullbackLeibler()], args.batch)
    measured, streamer = Measured(), view.streamer if isinstance(view, StreamedView) else None
    for n, policies in batches.items():
        evaluator.score(policies, range(args.sequences))
        before, seconds = streamer.sent_bytes if streamer else 0, []
        for _ in range(args.repeats):
            begun = time.perf_counter()
            measured.losses[n] = evaluator.score(policies, range(args.sequences))  # hands out numbers: waits for all
            seconds.append(time.perf_counter() - begun)
        measured.seconds[n] = min(seconds) / n
        measured.sent_bytes[n] = (streamer.sent_bytes - before) / args.repeats if streamer else 0.0
    evaluator.placer.release()
    if args.device != "cpu":
        measured.peak_bytes = torch.cuda.max_memory_allocated(args.device)
    elif streamer is not None:
        measured.peak_bytes = streamer.peak_bytes
    else:
        levels = (store.consumer(u, level) for u, unit in enumerate(space.units) for level in range(len(unit.levels)))
        stored = sum(weight.numel() * weight.element_size() for weight in levels if weight is not None)
        measured.peak_bytes = weight_bytes(view) + stored + activations(args, view)
    return measured


def weight_bytes(view: BlockView) -> int:
    """Of the dense network."""
    return sum(p.numel() * p.element_size() for p in view.model.parameters())


def activations(args: argparse.Namespace, view: BlockView) -> int:
    return view.activation_bytes(args.batch, args.length)


def default_memory(args: argparse.Namespace, view: BlockView) -> int:
    """Half of the weights, and the activations."""
    return weight_bytes(view) // 2 + activations(args, view)


def forget(device: str) -> None:
    """The device as if nothing had run on it."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def tell_sizes(args: argparse.Namespace, view: BlockView, store: Path) -> None:
    parameters = list(view.model.parameters())
    weights, levels = weight_bytes(view), sum(file.stat().st_size for file in store.glob("*.safetensors"))
    where = torch.cuda.get_device_name(args.device) if args.device != "cpu" else "cpu"
    print(
        f"{sum(p.numel() for p in parameters) / 1e6:,.1f} M parameters, {parameters[0].dtype}, {args.layers} blocks: "
        f"weights {weights / MIB:,.0f} MiB, levels {levels / MIB:,.0f} MiB; {args.sequences} sequences of "
        f"{args.length} tokens, {args.batch} a forward pass, on {where}"
    )


def report(args: argparse.Namespace, memory: int, whole: Measured, streamed: Measured) -> None:
    """A row for each batch size."""
    print(f"\n{'policies':>8s} {'s/policy':>10s} {'streamed':>10s} {'slow-down':>10s} {'moved MiB':>10s} {'GiB/s':>7s}")
    slow_down, difference = {}, 0.0
    for n, seconds in whole.seconds.items():
        slow_down[n] = streamed.seconds[n] / seconds
        speed = streamed.sent_bytes[n] / 2**30 / (streamed.seconds[n] * n)
        print(
            f"{n:8d} {seconds:10.4f} {streamed.seconds[n]:10.4f} {slow_down[n]:9.2f}x "
            f"{streamed.sent_bytes[n] / MIB:10,.0f} {speed:7.2f}"
        )
        difference = max(difference, float(np.abs(streamed.losses[n] - whole.losses[n]).max()))
    print(f"\npeak of the device's memory, MiB: {whole.peak_bytes / MIB:,.0f}", end="")
    print(f"; streamed {streamed.peak_bytes / MIB:,.0f} of {memory / MIB:,.0f}; largest difference {difference:.3g}")
    if args.json:
        told = {"device_memory": memory, "slow_down": slow_down, "difference": difference, "settings": vars(args)}
        for name, one in (("whole", whole), ("streamed", streamed)):
            numbers = {key: value for key, value in vars(one).items() if key != "losses"}
            told[name] = numbers
        print(json.dumps(told))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--device-memory", metavar="SIZE", help="8GiB; none is half of the weights and the activations")
    parser.add_argument("--dtype", help="none is float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--policies", default="1,8,32", help="batch sizes")
    parser.add_argument("--scratch", help="where the level store is written for a while; none is the temporary folder")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    numbers = {
        "sequences": 4, "length": 128, "batch": 1, "hidden": 256, "layers": 8, "intermediate": 688, "heads": 4,
        "kv-heads": 4, "vocab": 2000, "levels": 9, "round-to": 32, "repeats": 3,
    }  # fmt: skip
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    command(main)
