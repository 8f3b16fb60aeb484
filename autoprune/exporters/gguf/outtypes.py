"""How the numbers of a GGUF file are stored.

The package `gguf` writes the plain types and those of one scale (and one offset) for 32 weights. It can read the
K-quants but not write them: llama.cpp's own `llama-quantize` makes them of a file in f16.
"""

from autoprune.errors import UserError

BLOCKS = {"q8_0": 8, "q5_1": 5, "q5_0": 5, "q4_1": 4, "q4_0": 4}
"""Type -> bits of a weight, without the scales."""
PLAIN = ("f32", "f16", "bf16")
OUTTYPES = (*PLAIN, *BLOCKS)
ROW = 32
"""Weights that share a scale: rows of another length are stored in f16."""
EMBEDDINGS = ("token_embd.weight", "output.weight")


def check_outtype(outtype: str) -> None:
    """See that files can be written in a type.

    Raises:
        UserError: they cannot.
    """
    if outtype in OUTTYPES:
        return
    if "_k" in outtype.lower() or outtype.lower().startswith("iq"):
        raise UserError(
            f"outtype is '{outtype}', which the package gguf cannot write: export with outtype=f16, and turn that file "
            f"into it with llama.cpp's `llama-quantize FILE NEW {outtype.upper()}`."
        )
    raise UserError(f"outtype is '{outtype}': choose one of {', '.join(OUTTYPES)}.")


def stored_as(name: str, shape: tuple[int, ...], outtype: str) -> str:
    """The type that a tensor is stored in.

    Vectors stay in float32, as llama.cpp wants. Embeddings of files with fewer than 8 bits have 8, since every token
    depends on them. What has no whole blocks is in f16.

    Args:
        name: llama.cpp's.
        shape: rows first.
        outtype: of the file.
    """
    if len(shape) < 2 or "position_embd" in name:
        return "f32"
    wanted = "q8_0" if name in EMBEDDINGS and BLOCKS.get(outtype, 8) < 8 else outtype
    return "f16" if wanted in BLOCKS and shape[-1] % ROW else wanted


def file_type(outtype: str) -> str:
    """The name in `gguf.LlamaFileType` of a file with this type."""
    return "ALL_F32" if outtype == "f32" else f"MOSTLY_{outtype.upper()}"
