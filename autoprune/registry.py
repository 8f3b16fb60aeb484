"""The registry of parts: name -> `package.module:Object`. A part is imported only when it is chosen.

A new part is one new file and one line here. Without a fork, `package.module:Object` and `file.py:Object` work wherever
a name does, and an entry point in the group `autoprune.<kind>` registers a name.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from autoprune import live, usercode
from autoprune.errors import UserError

PARTS: dict[str, dict[str, str]] = {
    "agents": {
        "uniform": "autoprune.agents.uniform:Uniform",
        "random": "autoprune.agents.random:Random",
        "greedy": "autoprune.agents.greedy:Greedy",
        "evolution": "autoprune.agents.evolution:Evolution",
        "evopress": "autoprune.agents.evopress:EvoPress",
        "additive": "autoprune.agents.additive:Additive",
        "policy-gradient": "autoprune.agents.policy_gradient:PolicyGradient",
        "nsga2": "autoprune.agents.nsga2:NSGA2",
        "tpe": "autoprune.agents.tpe:TPE",
        "gp": "autoprune.agents.gp:GP",
        "policy-gradient-masks": "autoprune.agents.policy_gradient_masks:PolicyGradientMasks",
        "ppo": "autoprune.agents.ppo:PPO",
        "maskable-ppo": "autoprune.agents.maskable_ppo:MaskablePPO",
        "dqn": "autoprune.agents.dqn:DQN",
        "purl": "autoprune.agents.purl:PuRL",
        "ddpg": "autoprune.agents.ddpg:DDPG",
        "sac": "autoprune.agents.sac:SAC",
        "td3": "autoprune.agents.td3:TD3",
    },
    "rewards": {
        "amc": "autoprune.envs.rewards.amc:amc",
        "purl": "autoprune.envs.rewards.purl:purl",
        "purl-end": "autoprune.envs.rewards.purl:purl_at_end",
        "loss": "autoprune.envs.rewards.loss:loss",
        "rewarded-meta": "autoprune.envs.rewards.rewarded_meta:rewarded_meta",
    },
    "callbacks": {},
    "budgets": {
        "params": "autoprune.budgets.params:params",
        "macs": "autoprune.budgets.macs:macs",
        "nonzeros": "autoprune.budgets.nonzeros:nonzeros",
        "latency": "autoprune.budgets.latency:latency",
        "roofline": "autoprune.budgets.roofline:roofline",
        "activation": "autoprune.budgets.activation:activation",
        "memory": "autoprune.budgets.memory:memory",
        "kv_cache": "autoprune.budgets.kv_cache:kv_cache",
    },
    "criteria": {
        "magnitude": "autoprune.levels.magnitude:Magnitude",
        "wanda": "autoprune.levels.wanda:Wanda",
        "obs": "autoprune.levels.obs:OptimalBrainSurgeon",
        "taylor": "autoprune.levels.taylor:Taylor",
        "bn-scale": "autoprune.levels.bn_scale:BatchNormScale",
        "sparsegpt": "autoprune.levels.sparsegpt:SparseGPT",
        "global-magnitude": "autoprune.levels.global_magnitude:GlobalMagnitude",
    },
    "forms": {
        "groups": "autoprune.levels.groups:Groups",
        "sparse": "autoprune.levels.sparse:Sparse",
        "n:m": "autoprune.levels.n_of_m:NOfM",
        "bits": "autoprune.levels.bits:Bits",
        "linear": "autoprune.levels.linear:Linear",
    },
    "losses": {
        "kl": "autoprune.calibration.losses:KullbackLeibler",
        "ce": "autoprune.calibration.losses:CrossEntropy",
        "error": "autoprune.calibration.losses:ErrorRate",
    },
    "distillations": {
        "kl": "autoprune.distillation.forward_kl:ForwardKL",
        "reverse-kl": "autoprune.distillation.reverse_kl:ReverseKL",
        "hidden-mse": "autoprune.distillation.hidden_mse:HiddenMSE",
        "hidden-cosine": "autoprune.distillation.hidden_cosine:HiddenCosine",
    },
    "tasks": {
        "text": "autoprune.tasks.causal_lm:CausalLM",
        "images": "autoprune.tasks.image_classification:ImageClassification",
    },
    "families": {
        "llama": "autoprune.search_spaces.llama:FAMILY",
        "gpt2": "autoprune.search_spaces.gpt2:FAMILY",
        "opt": "autoprune.search_spaces.opt:FAMILY",
        "phi3": "autoprune.search_spaces.phi3:FAMILY",
        "resnet": "autoprune.search_spaces.resnet:FAMILY",
        "resnet-hf": "autoprune.search_spaces.resnet:HUGGING_FACE",
        "mobilenet": "autoprune.search_spaces.mobilenet:FAMILY",
        "vit": "autoprune.search_spaces.vit:FAMILY",
        "deit": "autoprune.search_spaces.vit:DEIT",
        "convnext": "autoprune.search_spaces.convnext:FAMILY",
        "traced": "autoprune.search_spaces.traced:FAMILY",
    },
    "models": {"tiny-cnn": "autoprune.models.tiny_cnn:tiny_cnn"},
    "trackers": {
        "csv": "autoprune.tracking.csv:Csv",
        "tensorboard": "autoprune.tracking.tensorboard:TensorBoard",
        "wandb": "autoprune.tracking.wandb:WeightsAndBiases",
        "mlflow": "autoprune.tracking.mlflow:MLflow",
    },
    "readers": {
        "parquet": "autoprune.data.columnar:Columnar",
        "tokens": "autoprune.data.token_file:TokenFile",
        "json-lines": "autoprune.data.json_lines:JsonLines",
        "json": "autoprune.data.json_list:JsonList",
        "table": "autoprune.data.table:Table",
        "text": "autoprune.data.plain_text:PlainText",
    },
    "exporters": {
        "hf": "autoprune.exporters.huggingface:HuggingFace",
        "policy": "autoprune.exporters.policy_json:PolicyFile",
        "module": "autoprune.exporters.module:Module",
        "onnx": "autoprune.exporters.onnx:Onnx",
        "gguf": "autoprune.exporters.gguf.exporter:Gguf",
        "compressed-tensors": "autoprune.exporters.compressed_tensors:CompressedTensors",
    },
}


FILES: dict[str, dict[str, str]] = {"budgets": {".csv": "autoprune.budgets.table:read"}}
"""Kind -> suffix -> the function that reads a part from a user's file that is not Python."""

_MISSING = object()


def names(kind: str) -> list[str]:
    """All names of a kind, built-in and from plug-ins, sorted."""
    return sorted({*PARTS[kind], *_entry_points(kind)})


def target(kind: str, name: str) -> str:
    """The `package.module:Object` or `file.py:Object` of a part. `name` may be registered or already of that form.

    Of a live object it is its class.

    Raises:
        UserError: no such name (with near misses).
    """
    if live.is_live(name):
        return live.origin(name)
    found = PARTS[kind].get(name) or _entry_point(kind, name) or (name if all(name.rpartition(":")) else None)
    if found is None:
        near = difflib.get_close_matches(name, names(kind), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        forms = ["package.module:Object", "file.py:Object", *(f"FILE{suffix}" for suffix in FILES.get(kind, {}))]
        raise UserError(
            f"no {singular(kind)} is called '{name}'.{hint} Known: {', '.join(names(kind)) or 'none'}; "
            f"your own is given as {' or '.join(forms)}."
        )
    return found


def load(kind: str, name: Any) -> Any:
    """Import the part called `name`, or read it from its file or from the table of live objects.

    A class, function or other object that can be called is a part itself.

    A Python file is run once per process, whatever paths lead to it.

    Raises:
        UserError: no such name (with near misses), its code does not import (with the file and line), or lacks the
            object (with near misses), or its file cannot be read.
    """
    if live.is_live(name):
        return live.find(kind, singular(kind), name)
    if callable(name):
        return name
    if not isinstance(name, str):
        raise UserError(f"a {singular(kind)} is given by name, or as a class or function, and not as {name!r}.")
    reader = FILES.get(kind, {}).get(Path(name).suffix.lower())
    if reader is not None:
        return _import(kind, name, reader)(_path(name))
    return _import(kind, name, target(kind, name))


def singular(kind: str) -> str:
    """The word for one part of a kind, for messages."""
    return {"criteria": "criterion", "families": "family", "losses": "loss"}.get(kind, kind.removesuffix("s"))


def _import(kind: str, name: str, found: str) -> Any:
    source, _, attribute = found.rpartition(":")
    origin = "" if found == name else f" from '{found}'"
    failed = f"the {singular(kind)} '{name}' could not be loaded{origin}"
    is_file = source.endswith(".py")
    if is_file and not _path(source).is_file():
        raise UserError(f"{failed}: there is no file '{_path(source).absolute()}'.")
    try:
        module = _run(_path(source).resolve()) if is_file else importlib.import_module(source)
        part = getattr(module, attribute, _MISSING)
    except (Exception, SystemExit) as error:  # a script may end itself when imported, and with status 0
        raise UserError(f"{failed}: {usercode.told(error)}.") from error
    if part is _MISSING:
        near = difflib.get_close_matches(attribute, [known for known in vars(module) if not known.startswith("_")], n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{failed}: there is no '{attribute}' in {source}.{hint}")
    file = getattr(module, "__file__", None)  # a built-in module has none
    if found not in PARTS[kind].values() and file and not source.startswith("autoprune."):
        usercode.FILES.add(file)
    return part


def _run(path: Path) -> ModuleType:
    """The module of a Python file. It is in `sys.modules`, where dataclasses and pickle look their classes up."""
    digest = hashlib.sha256(bytes(path)).hexdigest()[:16]
    name = f"_autoprune_file_{re.sub(r'[^A-Za-z0-9]', '_', path.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half a module is no module
        raise
    return module


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # unlike Path.expanduser, leaves an unknown user's ~ as it is


def _entry_point(kind: str, name: str) -> str | None:
    return _entry_points(kind).get(name)


def _entry_points(kind: str) -> dict[str, str]:
    """Names and targets of plug-ins. All installed packages are searched for them once, until one is installed."""
    return _installed(kind, tuple(_changed(path) for path in sys.path))


@functools.lru_cache(maxsize=64)
def _installed(kind: str, places: tuple[tuple[str, int], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for point in entry_points(group=f"autoprune.{kind}"):
        found.setdefault(point.name, point.value)
    return found


def _changed(path: str) -> tuple[str, int]:
    """A place of packages, and when something was last added to it or removed from it."""
    try:
        return path, os.stat(path or ".").st_mtime_ns
    except OSError:
        return path, 0
