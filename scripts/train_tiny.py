"""Train autoprune's tiny default model on Python documentation.

Three steps, in one call or in several:

    python scripts/train_tiny.py --extra SITE_PACKAGES --make-corpus corpus.jsonl.gz
    python scripts/train_tiny.py --corpus corpus.jsonl.gz --out DIR --seconds 280
    python scripts/train_tiny.py --corpus corpus.jsonl.gz --out DIR --report

The corpus holds the standard library's documentation, split by document name into a
training and a held-out part, and the docstrings of the packages under each --extra
folder, less whatever shares twelve words in a row with a held-out document. Without
--corpus the standard library of the running Python is read; --extra adds to either.
"""

import argparse
import ast
import gzip
import json
import lzma
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from autoprune.data import python_docs

EOT = "<|endoftext|>"
WINDOW = 12  # words in a row that count as shared text
POSITIONS = 1024  # the model's context, in tokens
STDLIB = "stdlib"


@dataclass(frozen=True)
class Document:
    """One document: its name, the tree it came from, its text and its side."""

    name: str
    source: str
    text: str
    held_out: bool


# --- corpus ------------------------------------------------------------------------


def stdlib_documents() -> list[Document]:
    """Return the running Python's documentation, the held-out documents whole.

    A training document loses each paragraph that shares text with a held-out one.
    """
    docs = [Document(name, STDLIB, text, python_docs.is_held_out(name)) for name, text in python_docs.documents()]
    held = held_windows(docs)
    return [d if d.held_out else without_shared(d, held) for d in docs]


def held_windows(docs: Iterable[Document]) -> set[str]:
    """Return every run of twelve words of the held-out documents, tables left out."""
    runs = {run for d in docs if d.held_out for run in windows(d.text)}
    return {run for run in runs if sum(map(str.isalpha, run)) >= 40}


def windows(text: str) -> Iterator[str]:
    """Yield each run of twelve words of ``text``."""
    words = text.split()
    for i in range(len(words) - WINDOW + 1):
        yield " ".join(words[i : i + WINDOW])


def without_shared(doc: Document, held: set[str]) -> Document:
    """Return ``doc`` without the paragraphs that share a run of words with ``held``."""
    kept = [p for p in doc.text.split("\n\n") if held.isdisjoint(windows(p))]
    return Document(doc.name, doc.source, "\n\n".join(kept), False)


def extra_documents(roots: Iterable[Path], held: set[str]) -> list[Document]:
    """Return the docstrings of the packages under ``roots``, one document a module.

    A module that shares text with the held-out documents is dropped whole.
    """
    files = [pair for root in roots for pair in python_docs.source_files(root)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        pairs = [pair for pair in pool.map(module_document, files, chunksize=64) if pair]
    return [
        Document(name, name.partition(".")[0], text, False)
        for name, text in python_docs.drop_repeats(pairs)
        if len(text) >= 200 and held.isdisjoint(windows(text))
    ]


def module_document(module_file: tuple[str, Path]) -> tuple[str, str] | None:
    """Return one module's document as (name, text), or None where there is none."""
    module, file = module_file
    try:
        source = file.read_bytes()
        entries = list(python_docs.docstrings(module, source))
        if b"add_newdoc(" in source or b"add_docstr(" in source:
            entries += added_docs(module, source)
    except (OSError, RecursionError):
        return None
    text = python_docs.join_entries(entries)
    return (module, text) if text.isascii() or ascii_share(text) > 0.95 else None


def ascii_share(text: str) -> float:
    """Return the share of ASCII characters in a text that has some."""
    return sum(map(str.isascii, text)) / len(text)


def added_docs(module: str, source: bytes) -> Iterator[tuple[str, str]]:
    """Yield the docstrings that numpy's and torch's sources attach to C functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("add_newdoc", "add_docstr"):
                *target, last = node.args
                strings = [n.value for n in ast.walk(last) if isinstance(n, ast.Constant)]
                texts = [s for s in strings if isinstance(s, str) and "\n" in s]
                names = [ast.unparse(n).strip("'\"") for n in target]
                if texts:
                    yield ".".join(names) or module, texts[0].strip()


def read_corpus(file: Path) -> list[Document]:
    """Return the documents that ``write_corpus`` wrote."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        return [Document(**json.loads(line)) for line in lines]


def write_corpus(file: Path, docs: Iterable[Document]) -> None:
    """Write the documents as JSON lines, compressed if the name ends in .gz."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(asdict(d)) + "\n" for d in docs)


def gather(args: argparse.Namespace) -> list[Document]:
    """Return the documents that the command line asks for."""
    docs = read_corpus(args.corpus) if args.corpus else stdlib_documents()
    if not args.extra:
        return docs
    known = [(d.name, d.text) for d in docs]
    extra = extra_documents(args.extra, held_windows(docs))
    merged = python_docs.drop_repeats(known + [(d.name, d.text) for d in extra])
    texts = [text for _, text in merged][len(known) :]
    fresh = [Document(d.name, d.source, text, False) for d, text in zip(extra, texts, strict=True) if len(text) >= 200]
    return docs + fresh


def held_out_text(docs: Iterable[Document]) -> str:
    """Return the held-out documents joined as ``python_docs.held_out_text`` does."""
    return "\n\n".join(d.text for d in docs if d.held_out)


def describe(docs: list[Document]) -> None:
    """Print how many characters each source gave."""
    sizes: Counter[str] = Counter()
    for d in docs:
        sizes["held out" if d.held_out else d.source] += len(d.text)
    print(f"{len(docs)} documents, {sum(sizes.values()) / 1e6:.1f} M characters")
    top = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sizes.most_common(60))
    print(f"by source, M characters: {top}", flush=True)


# --- tokenizer and model -----------------------------------------------------------


def train_tokenizer(texts: Iterable[str], vocab: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of ``vocab`` tokens; one of them is EOT."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=EOT,
        eos_token=EOT,
        pad_token=EOT,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: Any, texts: list[str]) -> Tensor:
    """Return the texts' token ids, int64 of shape (tokens,), an EOT after each text."""
    ids: list[int] = []
    for i in range(0, len(texts), 1000):
        for row in tokenizer.backend_tokenizer.encode_batch(texts[i : i + 1000]):
            ids += [*row.ids, tokenizer.eos_token_id]
    return torch.tensor(ids)


def new_model(args: argparse.Namespace, vocab: int) -> LlamaForCausalLM:
    """Return an untrained Llama model in float32."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.head_dim,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def forward(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Return logits (batch, length, vocab); no mask, so that attention stays fused."""
    hidden = model.model.embed_tokens(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    rotary = model.model.rotary_emb(hidden, positions)
    for layer in model.model.layers:
        out = layer(hidden, attention_mask=None, position_embeddings=rotary)
        hidden = out[0] if isinstance(out, tuple) else out
    logits: Tensor = model.lm_head(model.model.norm(hidden))
    return logits


# --- training ----------------------------------------------------------------------


def batches(ids: Tensor, batch: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, targets) for ever, each (batch, length), reshuffled every epoch."""
    span = torch.arange(length + 1, device=ids.device)
    while True:
        shift = int(torch.randint(length, ()))
        order = torch.randperm((len(ids) - shift - 1) // length)
        starts = (order * length + shift).to(ids.device)
        for i in range(0, len(starts) - batch + 1, batch):
            rows = ids[starts[i : i + batch, None] + span].long()
            yield rows[:, :-1], rows[:, 1:]


def train(model: LlamaForCausalLM, ids: Tensor, held: Tensor, args: Any) -> str:
    """Train in place on the token stream ``ids``; return a one-line summary.

    The learning rate follows a cosine over --steps or --seconds, whichever ends first.
    """
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.decay}, {"params": plain}],
        lr=args.lr,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=cuda,
    )

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            logits = forward(model, inputs)
        return cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    loss_fn = compiled(loss_of, ids, args) if cuda else loss_of
    optimizer.zero_grad(set_to_none=True)
    start = last = time.monotonic()
    losses: list[Tensor] = []
    done = 0
    for step, (inputs, targets) in enumerate(batches(ids, args.batch, args.length)):
        progress = max(step / args.steps, (time.monotonic() - start) / args.seconds)
        if progress >= 1:
            break
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min((step + 1) / args.warmup, cosine)
        loss = loss_fn(inputs, targets)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        done = step + 1
        if cuda and step % 20 == 0:
            torch.cuda.synchronize()  # keeps the queue short, so the clock is honest
        if time.monotonic() - last > args.log_every or step == 0:
            last = time.monotonic()
            recent = torch.stack(losses[-50:]).mean().item()
            rate = optimizer.param_groups[0]["lr"]
            print(
                f"{last - start:5.0f} s  step {step:6d}  rate {rate:.2e}  train {recent:.4f}"
                f"  held out {mean_loss(model, held):.4f} nats/token",
                flush=True,
            )
    tokens = done * args.batch * args.length
    return (
        f"{done} steps, {tokens / 1e6:.0f} M tokens, {tokens / len(ids):.1f} passes, {time.monotonic() - start:.0f} s"
    )


def compiled(loss_of: Callable[..., Tensor], ids: Tensor, args: Any) -> Callable[..., Tensor]:
    """Return ``loss_of`` compiled, or as it is when compiling fails."""
    try:
        fast = torch.compile(loss_of, dynamic=False)
        inputs, targets = next(batches(ids, args.batch, args.length))
        torch.autograd.backward(fast(inputs, targets))
        return fast
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException, OSError) as error:
        print(f"not compiled: {error!r}"[:500], flush=True)
        return loss_of


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, ids: Tensor) -> float:
    """Return the mean loss over ``ids[1:]`` in nats a token, windows of 1024 tokens."""
    cuda = ids.device.type == "cuda"
    whole = (len(ids) - 1) // POSITIONS * POSITIONS
    rows = list(ids[: whole + 1].unfold(0, POSITIONS + 1, POSITIONS))
    groups = [torch.stack(rows[i : i + 16]) for i in range(0, len(rows), 16)]
    total = 0.0
    for group in [*groups, ids[None, whole:]]:
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            logits = forward(model, group[:, :-1])
        losses = cross_entropy(logits.float().flatten(0, 1), group[:, 1:].flatten(), reduction="sum")
        total += losses.item()
    return total / (len(ids) - 1)


# --- report ------------------------------------------------------------------------


class KneserNey:
    """Interpolated Kneser-Ney n-gram model over token ids, one discount per order."""

    def __init__(self, ids: Tensor, order: int, vocab: int) -> None:
        """Count ``ids``, int64 of shape (tokens,); ``vocab ** order`` must fit int64."""
        self.order, self.vocab = order, vocab
        self.levels: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]] = []
        keys, counts = torch.unique(ngram_keys(ids, order, vocab), return_counts=True)
        for n in range(order, 0, -1):
            contexts, kinds = torch.unique_consecutive(keys // vocab, return_counts=True)
            ends = counts.cumsum(0)[kinds.cumsum(0) - 1]
            totals = torch.diff(ends, prepend=ends.new_zeros(1))
            once, twice = int((counts == 1).sum()), int((counts == 2).sum())
            discount = once / max(once + 2 * twice, 1)
            self.levels.insert(0, (keys, counts, contexts, totals, kinds, discount))
            # Lower orders count the distinct tokens before an n-gram, not its uses.
            keys, counts = torch.unique(keys % vocab ** (n - 1), return_counts=True)

    def probabilities(self, ids: Tensor) -> Tensor:
        """Return p(last token | those before), float64 (rows,), of ids (rows, order)."""
        p = torch.full((len(ids),), 1 / self.vocab, dtype=torch.float64, device=ids.device)
        for n, (keys, counts, contexts, totals, kinds, discount) in enumerate(self.levels, 1):
            key = join_keys(ids[:, -n:].T, self.vocab)
            context = key // self.vocab
            count = looked_up(keys, counts, key)
            total = looked_up(contexts, totals, context)
            backoff = discount * looked_up(contexts, kinds, context) * p
            mixed = ((count - discount).clamp(min=0) + backoff) / total.clamp(min=1)
            p = torch.where(total > 0, mixed, p)
        return p


def ngram_keys(ids: Tensor, n: int, vocab: int) -> Tensor:
    """Return every n-gram of ``ids`` as one int64."""
    return join_keys([ids[i : len(ids) - n + 1 + i] for i in range(n)], vocab)


def join_keys(columns: Any, vocab: int) -> Tensor:
    """Return rows of token ids as numbers in base ``vocab``, the last token lowest."""
    key = torch.zeros_like(columns[0])
    for column in columns:
        key = key * vocab + column
    return key


def looked_up(keys: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """Return the value (float64) of each wanted key among sorted ``keys``, else 0."""
    at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[at] == wanted, values[at], 0).double()


def report(out: Path, docs: list[Document], device: str) -> None:
    """Print nats a byte on the held-out text: model, n-grams, compressors."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).to(device).eval()
    text = held_out_text(docs)
    data = text.encode()
    eot = tokenizer.eos_token_id
    held = torch.tensor([eot, *tokenizer(text, verbose=False).input_ids]).to(device)
    tokens = len(held) - 1
    print(f"\nheld-out text: {len(data)} bytes, {tokens} tokens")
    print("| model | nats per byte | nats per token |\n| --- | --- | --- |")

    def row(name: str, nats: float) -> None:
        print(f"| {name} | {nats / len(data):.4f} | {nats / tokens:.4f} |", flush=True)

    row("tiny-llama (weights in bf16)", mean_loss(model, held) * tokens)
    stream = encode(tokenizer, [d.text for d in docs if not d.held_out]).to(device)
    for order in (2, 3, 4, 5):
        grams = KneserNey(stream, order, len(tokenizer))
        padded = torch.cat([held.new_full((order - 2,), eot), held])
        p = grams.probabilities(padded.unfold(0, order, 1))
        row(f"Kneser-Ney {order}-gram, same tokens and training text", -p.log().sum().item())
    for name, size in (
        ("xz -9e of the held-out text", len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))),
        ("gzip -9 of the held-out text", len(gzip.compress(data, 9))),
    ):
        row(name, size * 8 * math.log(2))


def sample(out: Path, prompt: str, device: str) -> str:
    """Return a greedy continuation of ``prompt`` by 80 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).to(device)
    inputs = tokenizer(prompt, return_tensors="pt").to(device)
    text: str = tokenizer.decode(model.generate(**inputs, max_new_tokens=80)[0])
    return text


# --- command line ------------------------------------------------------------------


def save(model: LlamaForCausalLM, tokenizer: Any, out: Path) -> None:
    """Write model (bf16), tokenizer and generation settings to the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    file = out / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # known to old versions too
    file.write_text(json.dumps(settings, indent=2) + "\n")


def parse_args() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--extra", type=Path, action="append", default=[], help="folder of packages")
    add("--make-corpus", type=Path, help="write the documents here and stop")
    add("--corpus", type=Path, help="read the documents from here")
    add("--out", type=Path, help="the model's folder")
    add("--report", action="store_true", help="measure; alone it trains nothing")
    add("--seconds", type=float, default=math.inf, help="training time at most")
    add("--steps", type=int, default=10_000, help="training steps at most")
    add("--batch", type=int, default=128)
    add("--length", type=int, default=POSITIONS, help="tokens in a training window")
    add("--lr", type=float, default=3e-3)
    add("--decay", type=float, default=0.1)
    add("--warmup", type=int, default=300, help="steps")
    add("--stdlib-times", type=int, default=2, help="passes over stdlib text in one epoch")
    add("--vocab", type=int, default=3072)
    add("--hidden", type=int, default=192)
    add("--intermediate", type=int, default=512)
    add("--layers", type=int, default=8)
    add("--heads", type=int, default=12)
    add("--kv-heads", type=int, default=6)
    add("--head-dim", type=int, default=16)
    add("--log-every", type=float, default=20.0, help="seconds")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    if not args.make_corpus and not args.out:
        parser.error("--out DIR or --make-corpus FILE is needed")
    return args


def main() -> None:
    """Run the steps that the command line asks for."""
    args = parse_args()
    docs = gather(args)
    describe(docs)
    if args.make_corpus:
        write_corpus(args.make_corpus, docs)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    only_report = args.report and (args.out / "model.safetensors").exists()
    if not only_report:
        torch.manual_seed(args.seed)
        texts = [d.text for d in docs if not d.held_out for _ in range(args.stdlib_times if d.source == STDLIB else 1)]
        clock = time.monotonic()
        tokenizer = train_tokenizer(texts, args.vocab)
        ids = encode(tokenizer, texts).to(torch.int16).to(device)
        held = encode(tokenizer, [held_out_text(docs)]).roll(1).to(device)
        model = new_model(args, args.vocab).to(device)
        size = sum(p.numel() for p in model.parameters())
        print(
            f"{size} parameters, {len(ids) / 1e6:.2f} M training tokens, tokenized in {time.monotonic() - clock:.0f} s",
            flush=True,
        )
        print(train(model, ids, held, args), flush=True)
        save(model, tokenizer, args.out)
    if args.report:
        report(args.out, docs, device)
    for prompt in ("json.dumps\n", "os.path.join\nJoin", 'The "with" statement'):
        print("---\n" + sample(args.out, prompt, device))


if __name__ == "__main__":
    main()
