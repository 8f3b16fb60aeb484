"""Recovery of the chosen policy after a search: refitting its consumers (`refit`) and fine-tuning (`finetuning`).

`result` reads what fine-tuning has written to a run.
"""
