"""Reads an export in Hugging Face form again, to write it in another form."""

from pathlib import Path
from typing import Any

from autoprune.errors import UserError
from autoprune.networks import pretrained
from autoprune.networks.checks import check_weights
from autoprune.networks.loading import explained
from autoprune.networks.quiet import without_bars
from autoprune.policy import Policy


def saved(directory: Path) -> tuple[Policy, Any, Any]:
    """The policy, the network in the checkpoint's dtype, and the tokenizer of an export.

    Raises:
        UserError: it is none of a language model, or it is damaged.
    """
    import autoprune.networks.pruned  # noqa: F401  # which transformers then knows

    policy = Policy.load(directory / "policy.json")
    with explained(str(directory)), without_bars():
        network, report = pretrained.load(
            "AutoModelForCausalLM", str(directory), dtype="auto", output_loading_info=True
        )
        tokenizer = pretrained.load(pretrained.TOKENIZER, str(directory))
    check_weights(str(directory), network, report)
    if tokenizer is None:
        raise UserError(f"'{directory}' holds no tokenizer, which a GGUF file needs.")
    return policy, network.eval(), tokenizer
