"""A family of one's own: how StarCoder2, which autoprune does not know, is cut into units.

    python examples/09_own_family.py

A family says of each block which widths it has: which weights write a width, which one reads it, and what stands there
when nothing of it is left. Everything else (permuting, reconstructing, counting, exporting) comes with the engine. A
package names its family by an entry point in the group `autoprune.families`, as
`starcoder2 = "my_package.starcoder2:FAMILY"`, and every command then knows it. This script is no package, so it writes
that line into the registry itself.

Expect, in about half a minute, what the contract of every family says of it (autoprune.testing), the losses of a search
on a small random network, and the sizes of the exported layers. A random network has little to lose: the numbers show
that the search works, not what it wins.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Starcoder2Config, Starcoder2ForCausalLM

import autoprune
from autoprune import registry
from autoprune.extend import Bundles, Family, Slice, Width
from autoprune.testing import check_family

ASSETS = Path(autoprune.__file__).parent / "assets" / "tiny-llama"


def widths(block: nn.Module, config: Any, mlp_group: int) -> list[Width]:
    """The query heads and the neurons of one decoder layer."""
    attention: Any = block.get_submodule("self_attn")
    mlp: Any = block.get_submodule("mlp")
    head_dim = int(attention.head_dim)
    key_value_heads = attention.k_proj.out_features // head_dim
    heads = attention.q_proj.out_features // head_dim
    return [
        Width(
            kind="attention",
            groups=heads,
            producers=(
                Slice("self_attn.q_proj", head_dim, 0),
                Slice("self_attn.k_proj", head_dim, 0, shared=True),  # by the query heads of a bundle
                Slice("self_attn.v_proj", head_dim, 0, shared=True),
            ),
            consumer=Slice("self_attn.o_proj", head_dim, 1),
            on_drop={"self_attn": "zero-attention", "input_layernorm": "identity"},
            config={"num_attention_heads": 1},
            context_macs=2 * head_dim,
            cache=2 * head_dim,
            bundles=Bundles(
                heads // key_value_heads,
                config={"num_key_value_heads": 1},
                sizes=("self_attn.num_key_value_groups",),
            ),
        ),
        Width(
            kind="mlp",
            groups=mlp.c_fc.out_features // mlp_group,
            producers=(Slice("mlp.c_fc", mlp_group, 0),),
            consumer=Slice("mlp.c_proj", mlp_group, 1),
            on_drop={"mlp": "zero", "post_attention_layernorm": "identity"},
            config={"intermediate_size": mlp_group},
        ),
    ]


FAMILY = Family(
    name="starcoder2", model_types=("starcoder2",), blocks="model.layers", widths=widths, attention="self_attn"
)


def save_network(directory: Path) -> None:
    """A random StarCoder2 of three layers, with the embedded model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(ASSETS)
    torch.manual_seed(0)
    config = Starcoder2Config(
        vocab_size=AutoConfig.from_pretrained(ASSETS).vocab_size, hidden_size=64, intermediate_size=128,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Starcoder2ForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main() -> None:
    """Check the family on a small network, search it, and export it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=40_000, help="policies x tokens scored")
    arguments = parser.parse_args()
    registry.PARTS["families"]["starcoder2"] = f"{__file__}:FAMILY"
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network"
        save_network(network)
        check_family("starcoder2", network, sequence_length=32)
        print("the contract of families holds")
        result = autoprune.search(
            network, budgets={"params": 0.5}, max_tokens=arguments.tokens, out=Path(folder) / "run",
            sequence_length=64, reconstruction_sequences=16, search_sequences=8, validation_sequences=8,
        )  # fmt: skip
        for row in result.table:
            print(f"{row.name:>8}: loss {row.validation_loss:.4f}, {row.params:,} parameters")
        model = AutoModelForCausalLM.from_pretrained(result.export(Path(folder) / "smaller"))
        for number, layer in enumerate(model.model.layers):
            kept = [f"{name} {tuple(p.shape)}" for name, p in layer.named_parameters() if name.endswith("_proj.weight")]
            print(f"layer {number}: {', '.join(kept) or 'nothing'}")


if __name__ == "__main__":  # the search imports this file to find the family
    main()
