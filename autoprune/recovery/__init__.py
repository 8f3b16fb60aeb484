"""Recovery of the chosen policy after a search: fine-tuning (`finetuning`), which begins with a refit.

`result` reads what fine-tuning has written to a run.
"""
