"""Search how much of every MLP to keep, within half of the neurons, and save the network: with optuna and torch.

The widths of attention are left alone. A Llama's names are written in; another family needs other ones. What is saved
needs `cut` with the same shares to be loaded again.
"""

import copy
import json
from pathlib import Path

import optuna
import torch
from safetensors.torch import save_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/model", dtype="float32").eval()
tokenizer = AutoTokenizer.from_pretrained("path/to/model")
tokens = tokenizer(Path("text.txt").read_text(), return_tensors="pt").input_ids[0]
scored, held_out = tokens[: 32 * 128].view(32, 128), tokens[32 * 128 : 64 * 128].view(32, 128)
layers = range(model.config.num_hidden_layers)


def cut(shares):
    pruned = copy.deepcopy(model)
    for layer, share in zip(pruned.model.layers, shares, strict=True):
        mlp = layer.mlp
        importance = mlp.down_proj.weight.norm(dim=0) * mlp.up_proj.weight.norm(dim=1)
        kept = importance.topk(max(1, int(share * len(importance)))).indices.sort().values
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight, linear.out_features = nn.Parameter(linear.weight[kept]), len(kept)
        mlp.down_proj.weight, mlp.down_proj.in_features = nn.Parameter(mlp.down_proj.weight[:, kept]), len(kept)
    return pruned


def within_budget(shares):
    while sum(shares) > 0.5 * len(shares) + 1e-6:
        shares = [share * 0.5 * len(shares) / sum(shares) for share in shares]
    return shares


@torch.no_grad()
def loss(network, some):
    return network(some, labels=some).loss.item()


def objective(trial):
    shares = within_budget([trial.suggest_float(f"layer{i}", 0.01, 1.0) for i in layers])
    trial.set_user_attr("shares", shares)
    return loss(cut(shares), scored)


study = optuna.create_study(
    study_name="search", storage="sqlite:///search.db", load_if_exists=True, sampler=optuna.samplers.TPESampler(seed=0)
)
study.optimize(objective, n_trials=60 - len(study.trials))
shares = study.best_trial.user_attrs["shares"]
best, uniform = cut(shares), cut([0.5 for _ in layers])
for name, network in (("dense", model), ("uniform", uniform), ("best", best)):
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{name}: loss {loss(network, held_out):.4f}, {parameters:,} parameters")
Path("smaller").mkdir(exist_ok=True)
save_model(best, "smaller/model.safetensors")
Path("smaller/shares.json").write_text(json.dumps(shares))
