"""Examples at the end of the help of every command. Each line fits 76 columns; `#` says what the next one does."""

EXAMPLES = {
    "": """\
# prune the embedded model on the embedded text
autoprune search
# half of the parameters of a network of yours, then write the smaller one
autoprune search --model path/to/model --data text.txt --out runs/half
autoprune export runs/half smaller
# completion of commands, options and names in your shell
autoprune --install-completion""",
    "search": """\
# keep half of what can be pruned, read a text of yours
autoprune search --model path/to/model --data text.txt --budget 50%
# two budgets and another agent, for ten minutes at most
autoprune search --budget params=60% --budget macs=0.5 \\
    --agent ppo --max-time 600
# settings from a file, and one of the agent's own
autoprune search --config settings.yaml agent_options.offspring=16""",
    "init": """\
# questions on a terminal, then settings.yaml
autoprune init settings.yaml
# no questions: what is given, and every other setting as a comment
autoprune init settings.yaml --model path/to/model --budget 50%
autoprune search --config settings.yaml""",
    "compare": """\
# three agents with five seeds each
autoprune compare --agents evolution,tpe,random --seeds 5 --out runs/three
# one more agent, within the same limits
autoprune compare --agents ppo --seeds 5 --out runs/three""",
    "resume": """\
# go on with a search or a comparison that was interrupted
autoprune resume runs/half
# the same with four workers
autoprune resume runs/half --workers 4
# search on with a higher limit, also after the end
autoprune resume runs/half --max-tokens 800k""",
    "show": """\
# the policy as bars
autoprune show runs/half
# one policy of a front, for a program
autoprune show runs/half/front/params-0.612.json --json""",
    "list": """\
# everything that can be chosen by name
autoprune list
# the search algorithms
autoprune list agents""",
    "export": """\
# a directory that transformers loads with `import autoprune`
autoprune export runs/half smaller
# padded with zeros, for stock transformers
autoprune export runs/half smaller --uniform
# ONNX
autoprune export runs/half smaller --to onnx
# one file for llama.cpp, of the search and of the fine-tuned network
autoprune export runs/half half.gguf --to gguf outtype=q8_0
autoprune export runs/half/finetuned/network half.gguf --to gguf""",
    "push": """\
# an export, to a repository that only you can see
autoprune push smaller me/smaller --private
# the fine-tuned network of a run, to a branch
autoprune push runs/half/finetuned/network me/smaller --revision tuned""",
    "report": """\
# runs/half/report.html
autoprune report runs/half
# another file
autoprune report runs/half --out half.html""",
    "dashboard": """\
# http://127.0.0.1:8080, until Ctrl-C
autoprune dashboard runs/half
# any free port
autoprune dashboard runs/half --port 0""",
    "watch": """\
# every run in runs/, on a page that is live
autoprune watch
# one run, which the page can stop, resume and give other limits
autoprune watch runs/half --control""",
    "finetune": """\
# refit alone, which takes seconds
autoprune finetune runs/half --epochs 0
# an hour at most, with adapters of rank 16
autoprune finetune runs/half --max-time 3600 --lora 16
# learn more from the dense network, and from its hidden states, too
autoprune finetune runs/half --epochs 1 labels=0.3 distill=kl,hidden-mse=0.5""",
    "evaluate": """\
# a network, pruned or not, on a text that no search has read
autoprune evaluate smaller --data another_text.txt
# the policy of a run, on its validation split
autoprune evaluate runs/half""",
}
"""Command -> examples; the empty name is `autoprune` itself. Help lists the commands in this order."""
