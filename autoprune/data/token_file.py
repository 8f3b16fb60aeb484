"""Tokens in safetensors: `input_ids` `[N, T]`, or `[sum of lengths]` with `lengths` `[N]` (`.safetensors`)."""

from autoprune.data.file import File
from autoprune.data.reader import Reader, Tokens
from autoprune.errors import UserError
from autoprune.files.arrays import read_tensors
from autoprune.files.reading import explained


class TokenFile(Reader):
    """Recognised by the name."""

    def recognises(self, file: File) -> bool:
        """By name."""
        return file.suffix == ".safetensors"

    def read(self, file: File) -> Tokens:
        """A document for each row, or for each length."""
        with explained("the file of tokens", file.path):
            tensors = read_tensors(file.path)
        ids, lengths = tensors.get("input_ids"), tensors.get("lengths")
        if ids is None:
            held = ", ".join(sorted(tensors)[:5])
            raise UserError(f"'{file.called}' holds {held or 'nothing'}, and no `input_ids`: it is no file of tokens.")
        whole = not ids.is_floating_point() and ids.numel() > 0 and int(ids.min()) >= 0
        if not whole or (lengths is None) != (ids.dim() == 2):
            raise UserError(
                f"`input_ids` in '{file.called}' is {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}: token "
                "numbers [N, T] are needed, or [tokens] with `lengths` [N]."
            )
        if lengths is None:
            return Tokens(list(ids.long()))
        if lengths.dim() != 1 or int(lengths.sum()) != len(ids) or int(lengths.min()) < 0:
            raise UserError(f"`lengths` in '{file.called}' do not add up to its {len(ids):,} tokens.")
        return Tokens(list(ids.long().split(lengths.tolist())))
