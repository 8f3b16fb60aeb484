"""Parts of a user's own that are wrong in small ways: one sentence that says where, exit status 2, no traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]

OWN = '''"""Parts that are wrong."""
import torch

from autoprune.tasks.causal_lm import CausalLM


class NoArguments:
    def search(self):
        pass


class Raises:
    def search(self, objective, rng):
        raise KeyError("lost")


class Steps:
    steps = -3

    def search(self, objective, rng):
        objective([objective.space.uniform()], steps=self.steps)


class HalfSteps(Steps):
    steps = 1.5


class UnknownFront:
    def search(self, objective, rng):
        objective([objective.space.uniform()])

    def front(self, objective):
        return [(99,) * len(objective.space.units)]


class NoFront(UnknownFront):
    def front(self, objective):
        return None


class Scalar:
    def prepare(self, logits, labels):
        return (logits,)

    def measure(self, logits, reference):
        return (logits - reference[0]).square().mean()


class NoTuple(Scalar):
    def prepare(self, logits, labels):
        return logits


class NoTarget(Scalar):
    def target(self, head, read, labels):
        return None


class MustHave(Scalar):
    def __init__(self, weight):
        pass


class TooMany:
    def order(self, weight, moments, groups):
        return torch.arange(groups + 2)


class Twice(TooMany):
    def order(self, weight, moments, groups):
        return torch.zeros(groups, dtype=torch.int64)


class Unasked(TooMany):
    needs = ("gradients_NG",)


class NoNeeds(TooMany):
    needs = None


class Nothing(CausalLM):
    def prepare(self, *args, **kwargs):
        return None


class OtherArguments(CausalLM):
    def prepare(self, config):
        return None


class NoSettings(CausalLM):
    def settings(self, model):
        return 5


class NoWords(CausalLM):
    words = 5


class BadQuality(CausalLM):
    def quality(self, losses):
        return {"ce": "small", "perplexity": 1.0}


class LacksQuality(CausalLM):
    def quality(self, losses):
        return {"other": 1.0}


class NoTraining(CausalLM):
    def training(self, prepared, candidates=False):
        return None


def with_loss(give):
    class Own(CausalLM):
        def training(self, prepared, candidates=False):
            examples = super().training(prepared, candidates)
            examples.__class__ = type("Examples", (type(examples),), {"loss": lambda self, *given: give})
            return examples

    return Own


FloatLoss = with_loss(1.0)
FixedLoss = with_loss(torch.tensor(1.0))


class NoExamples(CausalLM):
    def training(self, prepared, candidates=False):
        examples = super().training(prepared, candidates)
        examples.count = 0
        return examples


def any_option(assembly, policy, path, **options):
    path.write_text(str(options))


def hinted(assembly, policy, path, scale: "Nowhere" = 1.0):
    path.write_text(str(scale))
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    return "own.py"


@pytest.mark.parametrize(
    ("setting", "part", "seen"),
    [
        ("agent", "NoArguments", ("'search' takes (self)",)),
        ("agent", "Raises", ("your own code raised KeyError at own.py, line 14", "lost")),
        ("agent", "Steps", ("-3 training steps", "at least 0")),
        ("agent", "HalfSteps", ("1.5 training steps",)),
        ("agent", "UnknownFront", ("'UnknownFront'", "front", "scored")),
        ("agent", "NoFront", ("None in its front",)),
        ("loss", "Scalar", ("'Scalar'", "shape []", "one number a sequence")),
        ("loss", "NoTuple", ("'NoTuple'", "a tuple of tensors")),
        ("loss", "NoTarget", ("'NoTarget'", "no Target")),
        ("loss", "MustHave", ("'MustHave'", "weight")),
        ("criterion", "TooMany", ("'TooMany'", "names every group once")),
        ("criterion", "Twice", ("'Twice'", "names every group once")),
        ("criterion", "Unasked", ("'order'", "gradients_NG")),
        ("criterion", "NoNeeds", ("needs=None",)),
        ("task", "Nothing", ("'prepare'", "None", "no Prepared")),
        ("task", "OtherArguments", ("'prepare' takes (self, config)",)),
        ("task", "NoSettings", ("'settings'", "gives 5")),
        ("task", "NoWords", ("words",)),
        ("task", "BadQuality", ("'quality'", "'small' as 'ce'")),
        ("task", "LacksQuality", ("'quality'", "gives no 'ce'")),
    ],
)
def test_own_parts_that_are_wrong(
    refused: Refused, quick_arguments: list[str], own: str, setting: str, part: str, seen: tuple[str, ...]
) -> None:
    agent = [] if setting == "agent" else ["agent=uniform"]
    refused("search", *quick_arguments, *agent, f"{setting}={own}:{part}", "--out", "run", seen=seen)


@pytest.mark.parametrize(
    ("task", "seen"),
    [
        ("NoTraining", ("'training'", "no TrainingSet")),
        ("NoExamples", ("nothing to train on",)),
        ("FloatLoss", ("give the loss 1.0", "one number, with derivatives")),
        ("FixedLoss", ("shape []", "with derivatives")),
    ],
)
def test_examples_of_own_tasks_that_are_wrong(
    refused: Refused, finished_run: Path, own: str, tmp_path: Path, task: str, seen: tuple[str, ...]
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("task: null", f"task: {own}:{task}"))
    refused("finetune", run, "--max-steps", "1", seen=seen)


def test_options_of_a_function_that_takes_any(
    cli: Callable[..., object], finished_run: Path, own: str, tmp_path: Path
) -> None:
    cli("export", finished_run, "out.txt", "--to", f"{own}:any_option", "scale=2")
    assert (tmp_path / "out.txt").read_text() == "{'scale': 2}"


def test_an_exporter_with_an_annotation_of_nothing(
    cli: Callable[..., object], finished_run: Path, own: str, tmp_path: Path
) -> None:
    cli("export", finished_run, "out.txt", "--to", f"{own}:hinted", "scale=2")
    assert (tmp_path / "out.txt").read_text() == "2"
