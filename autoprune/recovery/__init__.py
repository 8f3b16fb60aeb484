"""What is done to the policy that a search chose: consumers solved once more (`refit`), and fine-tuning (`finetuning`).

`result` is what fine-tuning leaves in a run, for those who show it.
"""
