"""GGUF files: llama.cpp gives the pruned network's log-probabilities, or nothing is written."""

import json
import warnings
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from autoprune.assembly import Assembly
from autoprune.errors import UserError
from autoprune.exporters.gguf import vocabulary
from autoprune.exporters.gguf.outtypes import BLOCKS, OUTTYPES, stored_as
from autoprune.exporting import export_policy, export_run
from autoprune.provenance import make_policy
from autoprune.space import Levels
from tests import families
from tests.contracts.test_exporters import awkward_levels, placed_logits, tiny_assembly
from tests.llama_cpp import loaded

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

TOKENS = families.random_tokens(1, 11)
GEMMA = {"layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
LLAMA3 = {
    "rope_theta": 10_000.0, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "llama": ("llama", {}, "llama", "deci"),
    "llama tied": ("llama", {"tie_word_embeddings": True}, "llama", "deci"),
    "llama 3": ("llama", {"rope_parameters": LLAMA3}, "llama", "deci"),
    "mistral": ("mistral", {"sliding_window": None}, "llama", "deci"),
    "qwen2": ("qwen2", {}, "qwen2", "deci"),
    "qwen3": ("qwen3", {"tie_word_embeddings": False}, "qwen3", "qwen3"),
    "qwen3 tied": ("qwen3", {"tie_word_embeddings": True}, "qwen3", "openelm"),
    "gemma3": ("gemma3_text", GEMMA, "gemma3", "gemma3"),
    "gpt2": ("gpt2", {}, "gpt2", "gpt2"),
}
"""Name -> model type, configuration, and llama.cpp's architecture for equal and for different layers."""


def tokenizer_of_pairs() -> PreTrainedTokenizerFast:
    """As many tokens as the tiny networks have, all in ASCII: llama.cpp holds back what is half a character."""
    letters = [chr(33 + i) for i in range(94)] + ["\u0120"]
    pairs = [(a, b) for a in ascii_lowercase for b in ascii_lowercase][: families.VOCABULARY - 1 - len(letters)]
    vocabulary_ = {token: i for i, token in enumerate([*letters, *(a + b for a, b in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary_, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", chat_template="{{ messages }}")


def assembly_of(model_type: str, path: Path, text: str, shape: dict[str, Any]) -> Assembly:
    found = tiny_assembly(model_type, path, text, mlp_group=4, shape=shape)
    object.__setattr__(found.loaded, "tokenizer", tokenizer_of_pairs())
    return found


def written(assembly: Assembly, levels: Levels, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a dense network's file saves nothing
        return export_policy(assembly, make_policy(assembly, levels, {}), path, "gguf", **options)


def difference(assembly: Assembly, levels: Levels, path: Path) -> float:
    """The largest difference of log-probabilities behind a prompt, all tokens of the vocabulary."""
    expected = placed_logits(assembly, levels, TOKENS)[0, -1].log_softmax(-1)
    assembly.placer.release()
    with loaded(path, families.VOCABULARY) as runtime:
        return float((runtime.log_probabilities(TOKENS[0].tolist()) - expected).abs().max())


def field(path: Path, name: str) -> Any:
    return gguf.GGUFReader(path).fields[name].contents()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> Assembly:
    return assembly_of("llama", tmp_path_factory.mktemp("llama"), text_file, {})


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_computes_what_the_pruned_network_does(name: str, tmp_path: Path, text_file: str) -> None:
    model_type, shape, equal, different = CASES[name]
    assembly = assembly_of(model_type, tmp_path / "model", text_file, shape)
    dense = tuple(0 for _ in assembly.space.units)
    awkward = awkward_levels(assembly)
    whole = tuple(len(unit.levels) - 1 if unit.block in (0, 3) else 0 for unit in assembly.space.units)
    tolerance = 2e-3 if model_type in ("gpt2", "gemma3_text") else 2e-5  # llama.cpp looks GELU up in a table
    for levels, architecture in ((dense, equal), (awkward, different), (whole, equal)):
        path = written(assembly, levels, tmp_path / "out.gguf", outtype="f32")
        assert field(path, "general.architecture") == architecture
        assert difference(assembly, levels, path) < tolerance


def test_greedy_tokens_are_those_of_the_network(llama: Assembly, tmp_path: Path) -> None:
    levels = awkward_levels(llama)
    path = written(llama, levels, tmp_path / "out.gguf", outtype="f32")
    expected = TOKENS
    for _ in range(12):
        expected = torch.cat([expected, placed_logits(llama, levels, expected)[:, -1:].argmax(-1)], 1)
    llama.placer.release()
    with loaded(path, families.VOCABULARY) as runtime:
        assert runtime.greedy(TOKENS[0].tolist(), 12) == expected[0, TOKENS.shape[1] :].tolist()


@pytest.mark.parametrize("outtype", OUTTYPES)
def test_types_of_weights_are_read_back_within_their_precision(llama: Assembly, tmp_path: Path, outtype: str) -> None:
    levels = awkward_levels(llama)
    path = written(llama, levels, tmp_path / "out.gguf", outtype=outtype)
    bound = {"f32": 2e-5, "f16": 0.02, "bf16": 0.1, "q8_0": 0.1}.get(outtype, 3.0)
    assert difference(llama, levels, path) < bound
    stored = {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors}
    assert stored["blk.0.ffn_gate.weight"] == outtype
    assert stored["output_norm.weight"] == "f32"
    assert stored["token_embd.weight"] == ("q8_0" if BLOCKS.get(outtype, 8) < 8 else outtype)


def test_rows_without_whole_blocks_are_in_half_precision() -> None:
    assert stored_as("blk.0.ffn_down.weight", (8, 40), "q8_0") == "f16"
    assert stored_as("blk.0.ffn_down.weight", (8, 64), "q8_0") == "q8_0"
    assert stored_as("blk.0.attn_norm.weight", (64,), "q4_0") == "f32"


def test_the_file_holds_the_policy_the_tokens_and_the_template(llama: Assembly, tmp_path: Path) -> None:
    policy = make_policy(llama, awkward_levels(llama), {})
    path = export_policy(llama, policy, tmp_path / "folder", "gguf")
    assert path == tmp_path / "folder"
    file = path / "model.gguf"
    assert (
        json.loads(field(file, "autoprune.policy"))["units"]
        == json.loads(policy.model_dump_json(by_alias=True))["units"]
    )
    assert field(file, "tokenizer.chat_template") == "{{ messages }}"
    assert field(file, "tokenizer.ggml.pre") == "gpt-2"
    assert len(field(file, "tokenizer.ggml.tokens")) == families.VOCABULARY
    assert field(file, "tokenizer.ggml.bos_token_id") == families.VOCABULARY - 1


# -- tokenizers ------------------------------------------------------------------------------------------------

ROWS = 600
TEXTS = ("The year 2024, and 17 more: don't!", "  two blanks\n\nand lines", "naïve café — 東京", "f(x) = x**2  # code")


def trained(pre: Any, **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, trained on the texts with a splitting of its own."""
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "1234567890 123 12 345 2024 17"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", **options)


def splitting(regex: str) -> Any:
    from tokenizers import Regex

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


SPLITTERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    **{name: splitting(regex) for regex, name in vocabulary.SPLITS.items()},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, text_file: str) -> Assembly:
    """A network with room for the tokens of any tokenizer below."""
    return tiny_assembly("llama", tmp_path_factory.mktemp("wide"), text_file, shape={"vocab_size": ROWS})


def with_tokenizer(assembly: Assembly, tokenizer: Any, path: Path, **options: Any) -> Path:
    object.__setattr__(assembly.loaded, "tokenizer", tokenizer)
    return written(assembly, tuple(0 for _ in assembly.space.units), path, **options)


@pytest.mark.parametrize("name", SPLITTERS)
def test_llama_cpp_splits_text_as_the_tokenizer_does(name: str, wide: Assembly, tmp_path: Path) -> None:
    tokenizer = trained(SPLITTERS[name])
    path = with_tokenizer(wide, tokenizer, tmp_path / "out.gguf")
    assert field(path, "tokenizer.ggml.pre") == name
    with loaded(path, ROWS) as runtime:
        assert [runtime.tokens(text) for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]


def test_llama_cpp_merges_sentence_pieces_as_the_tokenizer_does(wide: Assembly, tmp_path: Path) -> None:
    tokenizer = of_sentence_pieces()
    path = with_tokenizer(wide, tokenizer, tmp_path / "out.gguf")
    with loaded(path, ROWS) as runtime:
        assert [runtime.tokens(text) for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]


def test_a_text_begins_as_the_tokenizer_has_it(wide: Assembly, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = trained(SPLITTERS["gpt-2"])
    template = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    path = with_tokenizer(wide, tokenizer, tmp_path / "out.gguf")
    with loaded(path, ROWS) as runtime:
        assert runtime.tokens(TEXTS[0], special=True) == tokenizer(TEXTS[0])["input_ids"]


def of_sentence_pieces() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's: characters are merged, and a byte stands for a character that has no token."""
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = BpeTrainer(vocab_size=ROWS - 8, special_tokens=special, show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator([*TEXTS, "the year and the lines of code"] * 3, trainer)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = described["added_tokens"][:3]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


# -- what is refused -------------------------------------------------------------------------------------------


def test_what_a_file_cannot_hold_is_told(llama: Assembly, wide: Assembly, tmp_path: Path, text_file: str) -> None:
    dense = tuple(0 for _ in llama.space.units)
    with pytest.raises(UserError, match="llama-quantize FILE NEW Q4_K_M"):
        written(llama, dense, tmp_path / "out.gguf", outtype="q4_k_m")
    with pytest.raises(UserError, match="outtype is 'int3': choose one of f32, f16"):
        written(llama, dense, tmp_path / "out.gguf", outtype="int3")
    with pytest.raises(UserError, match="drops every layer"):
        written(llama, llama.space.sparsest, tmp_path / "out.gguf")
    (tmp_path / "notes.gguf").write_text("mine")
    with pytest.raises(UserError, match="is no GGUF file, and is not replaced"):
        written(llama, dense, tmp_path / "notes.gguf")
    with pytest.raises(UserError, match="pre=llama-bpe"):
        with_tokenizer(wide, trained(splitting(r"\d")), tmp_path / "out.gguf")
    opt = tiny_assembly("opt", tmp_path / "opt", text_file)
    with pytest.raises(UserError, match="this network's is 'opt'"):
        written(opt, tuple(0 for _ in opt.space.units), tmp_path / "out.gguf")
    assert sorted(file.name for file in tmp_path.glob("*.gguf")) == ["notes.gguf"]


def test_a_splitting_can_be_named(wide: Assembly, tmp_path: Path) -> None:
    path = with_tokenizer(wide, trained(splitting(r"\d")), tmp_path / "out.gguf", pre="gpt-2")
    assert field(path, "tokenizer.ggml.pre") == "gpt-2"


def test_windows_that_differ_are_refused(tmp_path: Path, text_file: str) -> None:
    shape = {"use_sliding_window": True, "max_window_layers": 3}
    assembly = tiny_assembly("qwen2", tmp_path / "model", text_file, shape=shape)
    with pytest.raises(UserError, match="the same window of attention"):
        written(assembly, tuple(0 for _ in assembly.space.units), tmp_path / "out.gguf")


# -- exports that become GGUF files ----------------------------------------------------------------------------


def test_an_export_becomes_a_file(llama: Assembly, tmp_path: Path) -> None:
    policy = make_policy(llama, awkward_levels(llama), {})
    native = export_policy(llama, policy, tmp_path / "native", "hf")
    same = written(llama, awkward_levels(llama), tmp_path / "same.gguf", outtype="f32")
    done = export_run(native, tmp_path / "out.gguf", "gguf", {"outtype": "f32"})
    assert done.written == (tmp_path / "out.gguf").stat().st_size
    assert (tmp_path / "out.gguf").read_bytes() == same.read_bytes()
    with pytest.raises(UserError, match="is written of a run"):
        export_run(native, tmp_path / "graph", "onnx")


def test_an_export_that_would_be_padded_is_refused(tmp_path: Path, text_file: str) -> None:
    assembly = assembly_of("gpt2", tmp_path / "model", text_file, {})
    native = export_policy(assembly, make_policy(assembly, awkward_levels(assembly), {}), tmp_path / "native", "hf")
    with pytest.raises(UserError, match="export the run, which pads them"):
        export_run(native, tmp_path / "out.gguf", "gguf")


def test_bytes_that_are_never_merged_stay_bytes(tmp_path: Path, text_file: str) -> None:
    """The file has one merge then, which makes no token."""
    assembly = tiny_assembly("llama", tmp_path / "model", text_file)
    path = written(assembly, awkward_levels(assembly), tmp_path / "out.gguf")
    with loaded(path, families.VOCABULARY) as runtime:
        assert [runtime.tokens(text) for text in TEXTS] == [assembly.loaded.tokenizer(t)["input_ids"] for t in TEXTS]
