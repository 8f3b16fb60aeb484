"""Causal language modelling: the network predicts the next token at every position of a sequence."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from autoprune.data_names import Wanted
from autoprune.errors import UserError
from autoprune.ports.task import GraphInput, Prepared, Progress, Task
from autoprune.ports.training import TrainingSet
from autoprune.wording import Measure, Words
from autoprune.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.config import SearchConfig
    from autoprune.data.splits import Splits
    from autoprune.networks.blocks import BlockView
    from autoprune.networks.family import Family
    from autoprune.networks.loading import LoadedModel

NATS = "nats per token"


class CausalLM(Task):
    """A decoder of transformers and its tokenizer, on a text."""

    name = "text"
    words = Words(
        "text", "token", "sequence", "text",
        label_loss=Measure("ce", "cross-entropy"),
        quality=Measure("perplexity", "perplexity", "digits", better=0),
        others=(Measure("kl", "loss (kl)"),),
        units={"kl": NATS, "ce": NATS, "error": "share of wrong answers"},
    )  # fmt: skip
    supports = ("roofline", "decode", "masks", "device_memory", "workers")
    instead: ClassVar[Mapping[str, str]] = {
        "activation": "the budget activation is of networks that read images so far: params or macs here.",
        "augment": "augment shifts and mirrors images: this run is of a language model.",
    }
    auto_class = "AutoModelForCausalLM"
    read_by = "tokenizer"
    has_context = True

    def prepare(self, config: "SearchConfig", masks: bool, progress: Progress, data: str | None = None) -> Prepared:
        """Load a language model and sequences of a text. If the text's hash is known, the text is read later."""
        from autoprune.data.text import read_texts
        from autoprune.networks.loading import load_model

        texts = read_texts(config.wanted()) if data is None else None
        progress("loading the model", 0.0)
        loaded = load_model(config.model, config.device, config.dtype, config.trust_remote_code, config.home())
        _check_length(loaded, config.sequence_length)

        @cache
        def read() -> "Splits":
            found = (texts or read_texts(config.wanted())).sequences(loaded.tokenizer, config.sequence_length)
            for part in found.parts:
                _check_vocabulary(loaded, part)
            splits = found.split(config.split_sizes(), config.data_seed)
            if data not in (None, splits.digest):
                raise UserError(
                    f"the text {config.wanted().called} is not the one that was searched on: put that back."
                )
            return splits

        if data is None:
            read()
        return Prepared(config, loaded, read, self.view_of(loaded.model, loaded.family, config, masks))

    def view_of(self, model: "nn.Module", family: "Family", config: "SearchConfig", masks: bool) -> "BlockView":
        """The network's blocks at `config.home()`. If configured, they are streamed to the device one after another."""
        from autoprune.networks.streaming import StreamedView
        from autoprune.networks.text import TextView

        view = TextView(model, family, config.mlp_group)
        if config.device_memory is None:
            return view
        return StreamedView(
            view, config.device, config.device_memory, config.batch_size(), config.sequence_length, masks
        )

    def notices(self, prepared: Prepared) -> Iterable[str]:
        """How the data were read, where this was guessed."""
        return prepared.splits.notices

    def samples_of(self, prepared: Prepared, data: "Wanted | str") -> "Tensor":
        """Sequences of another text."""
        from autoprune.data.text import read_texts

        return read_texts(data).tokens(prepared.loaded.tokenizer, prepared.config.sequence_length)

    def quality(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The cross-entropy and its exponential."""
        import numpy as np

        with np.errstate(over="ignore"):
            return {"ce": losses["ce"], "perplexity": float(np.exp(losses["ce"]))}

    def training(self, prepared: Prepared, candidates: bool = False) -> TrainingSet:
        """All sequences of the text except the validation split and, for candidates, the search split."""
        import torch

        from autoprune.data.layout import Layout
        from autoprune.data.text import read_texts
        from autoprune.tasks.text_training import TextTraining
        from autoprune.training.blending import left

        config, held_out, search = prepared.config, prepared.splits.validation, prepared.splits.search
        texts, read = read_texts(config.wanted()), (prepared.loaded.tokenizer, config.sequence_length)
        found = texts.sequences(*read)
        tokens_NT = found.tokens()
        known = {row.numpy().tobytes() for part in (held_out, *([search] if candidates else [])) for row in part}
        others_N = torch.tensor([row.numpy().tobytes() not in known for row in tokens_NT])

        def layout(answers: bool) -> "Layout":
            whole = texts.layout(found, *read, answers)
            return Layout(whole.documents[others_N], whole.answers[others_N])

        return TextTraining(prepared.view, left(tokens_NT, others_N), held_out, layout, prepared.loaded.digest)

    def forward_pass(self, view: "BlockView", workload: Workload) -> Callable[[], None]:
        """Prefill of whole sequences, or one new token behind a cache."""
        from autoprune.tasks.text_passes import pass_of

        return pass_of(view.model, workload)

    def macs(self, view: "BlockView", some_BT: "Tensor", workload: Workload) -> float:
        """Per token, at the workload's context."""
        from autoprune.evaluation.counting import macs_per_token

        return macs_per_token(view, some_BT.device, workload.context)

    def save_preprocessing(self, prepared: Prepared, directory: Path) -> None:
        """The tokenizer."""
        prepared.loaded.tokenizer.save_pretrained(directory)

    def graph_input(self, prepared: Prepared) -> GraphInput:
        """Token numbers `[B, T]` from the search split. Checked samples are longer and shorter than the traced one."""
        tokens_NT = prepared.splits.search.cpu()
        tokens, length = tokens_NT.flatten(), tokens_NT.shape[1]
        example, *samples = (
            tokens[: rows * columns].view(rows, columns)
            for rows, columns in ((2, length // 2), (1, length), (3, length // 4))
        )
        notes = [
            "There is no cache of keys and values: every pass reads the sequences from their beginning.",
            "There is no attention mask: sequences of a batch have one length, or are padded on the right.",
        ]
        config: Any = prepared.loaded.model.config
        positions = getattr(config, "max_position_embeddings", None)
        return GraphInput(
            "input_ids", {0: "batch", 1: "sequence"}, example, samples, notes, {"use_cache": False},
            {"max_positions": positions} if positions else {},
        )  # fmt: skip

    def evaluate_directory(
        self,
        path: Path,
        data: "Wanted | str | None",
        sequence_length: int,
        max_sequences: int | None,
        device: str = "cpu",
        dtype: str = "auto",
        progress: Progress = lambda stage, share: None,
    ) -> dict[str, Any]:
        """Measure a network in Hugging Face form on a text; text_directory.py says what is measured."""
        from autoprune.tasks.text_directory import evaluate_directory

        return evaluate_directory(path, data, sequence_length, max_sequences, device, dtype, progress)


def _check_length(loaded: "LoadedModel", length: int) -> None:
    longest = getattr(loaded.model.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise UserError(f"sequence_length={length} is beyond the model's {longest} positions.")


def _check_vocabulary(loaded: "LoadedModel", tokens_NT: "Tensor") -> None:
    model: Any = loaded.model
    embeddings = model.get_input_embeddings().weight.shape[0]
    highest = int(tokens_NT.max()) if tokens_NT.numel() else 0
    if highest >= embeddings:
        raise UserError(
            f"the tokenizer in '{loaded.path}' gives token {highest}, and the model embeds {embeddings} tokens: it is "
            "another model's tokenizer."
        )
