"""What llama.cpp makes of a run's GGUF files: size, cross-entropy and speed, the dense network's files beside.

    python benchmarks/llama_cpp.py RUN --test FILE [--outtypes f16,q8_0,q4_0] [--positions 64] [--length 256] [--json]

The pruned and the dense network are exported as `autoprune export RUN FILE --to gguf outtype=TYPE` does, and llama.cpp
(xllamacpp) reads each file. It gives the log-probabilities of all tokens behind each of `--positions` windows of
`--length` tokens, which are spread evenly over a text. `cross-entropy` is of the text's own next token. `difference` is
the largest difference of a log-probability to the network in torch, among tokens that either has above 1e-4; `same` is
the share of windows with the same most probable token. `prefill` and `decode` are tokens a second that llama.cpp
reports, medians over the windows, `--threads` threads. Needs `autoprune[gguf]` and xllamacpp.
"""

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import command, parser_of
from torch import Tensor

from autoprune.assembly import Assembly
from autoprune.data.text import read_texts
from autoprune.exporting import export_policy, reopen
from autoprune.policy import Policy
from autoprune.provenance import make_policy, proposal_of
from autoprune.space import Proposal

PROBABLE = 1e-4
NEW = 16  # tokens that are decoded behind each window, for the speed


@dataclass(frozen=True)
class Row:
    """One file."""

    network: str
    outtype: str
    megabytes: float
    cross_entropy: float
    torch_cross_entropy: float
    difference: float
    same: float
    prefill: float
    decode: float


def main() -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--test", required=True)
    parser.add_argument("--outtypes", default="f16,q8_0,q4_0")
    parser.add_argument("--positions", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    assembly, best = reopen(args.run)
    dense = make_policy(assembly, tuple(0 for _ in assembly.space.units), {})
    windows = _windows(assembly, args.test, args.positions, args.length)
    rows = []
    for network, policy in (("dense", dense), ("pruned", best)):
        expected = _in_torch(assembly, proposal_of(assembly, policy), windows)
        for outtype in args.outtypes.split(","):
            rows.append(_row(assembly, policy, network, outtype, windows, expected, args.threads))
            print(_told(rows[-1]), flush=True)
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))


def _windows(assembly: Assembly, text: str, positions: int, length: int) -> Tensor:
    """Windows with the token behind each, `[P, length + 1]`, spread evenly over a text."""
    tokens_NT = read_texts(text).tokens(assembly.loaded.tokenizer, length + 1)
    return tokens_NT[torch.linspace(0, len(tokens_NT) - 1, min(positions, len(tokens_NT))).long()]


@torch.no_grad()
def _in_torch(assembly: Assembly, proposal: Proposal, windows: Tensor) -> Tensor:
    """Log-probabilities behind each window, `[P, V]`."""
    assembly.placer.place(proposal)
    model: Any = assembly.loaded.model
    found = [model(window[None, :-1]).logits[0, -1].float().log_softmax(-1) for window in windows]
    assembly.placer.release()
    return torch.stack(found)


def _row(
    assembly: Assembly, policy: Policy, network: str, outtype: str, windows: Tensor, expected: Tensor, threads: int
) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = export_policy(assembly, policy, Path(folder) / "model.gguf", "gguf", outtype=outtype)
        size = path.stat().st_size / 1e6
        answers = _in_llama_cpp(path, windows, expected.shape[1], threads)
    found = torch.stack([answer.log_probabilities for answer in answers])
    next_token = windows[:, -1:]
    probable = (found.exp() > PROBABLE) | (expected.exp() > PROBABLE)
    return Row(
        network, outtype, size,
        cross_entropy=-float(found.gather(1, next_token).mean()),
        torch_cross_entropy=-float(expected.gather(1, next_token).mean()),
        difference=float((found - expected).abs()[probable].max()),
        same=float((found.argmax(1) == expected.argmax(1)).float().mean()),
        prefill=statistics.median(answer.prefill for answer in answers),
        decode=statistics.median(answer.decode for answer in answers),
    )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Of llama.cpp behind one window: `[V]`, and its tokens a second."""

    log_probabilities: Tensor
    prefill: float
    decode: float


def _in_llama_cpp(path: Path, windows: Tensor, vocabulary: int, threads: int) -> Sequence[Answer]:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx = str(path), windows.shape[1] + NEW
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    answers = []
    for window in windows.tolist():
        asked = {"prompt": window[:-1], "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        first = server.handle_completions({**asked, "max_tokens": 1, "logprobs": vocabulary})
        log_probabilities = torch.full((vocabulary,), float("-inf"))
        for entry in first["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            log_probabilities[entry["id"]] = entry["logprob"]
        timed = server.handle_completions({**asked, "max_tokens": NEW})["timings"]
        answers.append(Answer(log_probabilities, timed["prompt_per_second"], timed["predicted_per_second"]))
    return answers


def _told(row: Row) -> str:
    return (
        f"{row.network:7} {row.outtype:5} {row.megabytes:8.1f} MB   cross-entropy {row.cross_entropy:.4f} "
        f"(torch {row.torch_cross_entropy:.4f})   difference {row.difference:.4f}   same {row.same:.3f}   "
        f"prefill {row.prefill:6.0f}/s   decode {row.decode:6.1f}/s"
    )


if __name__ == "__main__":
    command(main)
