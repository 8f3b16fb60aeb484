"""Plain modules that no family covers: which widths a trace has, what is refused, and a run from end to end."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import autoprune
from autoprune import exporting
from autoprune.assembly import assemble
from autoprune.budgets.latency import clock
from autoprune.budgets.metric import Network
from autoprune.calibration.moments import inputs_of
from autoprune.config import load_config
from autoprune.coverage import Coverage, Left
from autoprune.cutting import reading
from autoprune.cutting.live import LiveWidth
from autoprune.errors import UserError
from autoprune.exporting import export_policy
from autoprune.networks.images import ImageView
from autoprune.networks.modules import family_of_module
from autoprune.networks.tracing import TracedView, image_view
from autoprune.provenance import make_policy
from autoprune.reports.page import write_report
from autoprune.tasks.image_training import ImageMeasurement, augmented
from autoprune.training.refit import RIDGES, Affine, Fit, _refit
from tests import image_families, traced_networks
from tests.conftest import Answer

SPLITS = {"reconstruction_sequences": 8, "search_sequences": 4, "validation_sequences": 4, "sequence_length": 8}


def told(width: LiveWidth) -> str:
    """A width in one line."""
    cut, short = width.width, "network."
    parts = [*(s.module for s in cut.producers), f"{cut.consumer.module}/{cut.consumer.size}", cut.norm or "-"]
    behind = f" > {told(width.behind)}" if width.behind else ""
    return f"{cut.kind} {cut.groups} {' '.join(part.removeprefix(short) for part in parts)}{behind}"


FOUND: dict[str, list[list[str]]] = {
    "traced-vgg": [
        ["conv 8 features.0 features.1 features.3/1 features.4"],
        ["conv 12 features.7 features.8 features.10/1 features.11"],
        ["conv 10 features.14 features.15 fc1/4 bn"],
    ],
    "traced-preactivated": [
        ["conv 8 stages.0.conv1 stages.0.bn2 stages.0.conv2/1 -"],
        ["conv 12 stages.1.conv1 stages.1.bn2 stages.1.conv2/1 -"],
        ["conv 6 narrow.0 narrow.2/1 narrow.3 > conv 6 narrow.2 narrow.3 narrow.5/1 narrow.6"],
    ],
    "traced-mlp": [
        ["mlp 12 layers.1 layers.2 layers.4/1 layers.5"],
        ["mlp 9 layers.7 layers.9/1 -"],
    ],
    "traced-dense": [
        ["conv 8 layers.0.conv1 layers.0.norm2 layers.0.conv2/1 -"],
        ["conv 8 layers.1.conv1 layers.1.norm2 layers.1.conv2/1 -"],
    ],
    "traced-efficient": [
        *[
            [
                f"conv {size} {block}.expand {block}.norm1 {block}.depth {block}.norm2 {block}.gate.expand "
                f"{block}.gate.reduce {block}.project/1 {block}.norm3"
            ]
            for block, size in (("blocks.0", 32), ("blocks.1", 32), ("blocks.2", 48))
        ],
        ["conv 16 head fc/1 -"],
    ],
    "traced-padded": [["conv 16 one norm act two/1 -"], ["conv 6 four fc/16 -"]],
    "traced-normed": [["conv 10 two norm2 three/1 -"]],
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_widths_that_are_found(name: str) -> None:
    assert [[told(width) for width in row] for row in image_families.view_of(name).widths] == FOUND[name]


def test_only_what_a_shortcut_passes_by_can_be_dropped() -> None:
    def droppable(name: str) -> list[bool]:
        return [width.width.droppable for row in image_families.view_of(name).widths for width in row]

    assert droppable("traced-mobile") == [True, False, True]
    assert droppable("traced-efficient") == [True, False, True, False]
    assert droppable("traced-mixer") == droppable("traced-preactivated")[:1] * 4 == [True] * 4
    assert not any(droppable("traced-vgg") + droppable("traced-dense"))


def test_families_win_over_tracing() -> None:
    assert family_of_module(image_families.tiny_model("plain-basic")).name == "resnet"
    assert type(image_families.view_of("plain-basic")) is ImageView
    assert isinstance(image_families.view_of("traced-vgg"), TracedView)


class Pair(nn.Module):
    """Two convolutions, between which something may stand."""

    def __init__(self, between: str = "", of: Any = nn.Conv2d, to: Any = nn.Conv2d, **how: Any) -> None:
        super().__init__()
        self.one, self.two = to(3, 8, 3), of(8, 8, 3, **how)
        self.norm, self.fc, self.between = nn.GroupNorm(2, 8), nn.Linear(8, 5), between

    def forward(self, x: Tensor) -> Any:
        x = self.one(x)
        if self.between == "twice":
            x = self.one(x[:, :3])
        if self.between == "norm":
            x = self.norm(x)
        if self.between == "branch":
            x = x + functional.relu(x)
        if self.between == "mean":
            x = x - x.mean((1, 2), keepdim=True)
        if self.between == "weight":
            x = x * self.one.weight.mean()
        if self.between == "shuffle":
            x = x[:, [1, 0, 2, 3, 4, 5, 6, 7]]
        if self.between == "columns":
            x = x.permute(0, 2, 3, 1).reshape(x.shape[0], 900, -1).permute(0, 2, 1)[..., None].expand(-1, -1, -1, 3)
        if self.between == "fixed":
            x = x.view(-1, 8, x.shape[2], x.shape[3])
        if self.between == "first":
            x = x * (x[:, :1] > 0)
        if self.between == "decision" and x.sum() > 0:
            x = -x
        out = self.two(x).mean((2, 3))
        return (out, x) if self.between == "pair" else out


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Pair("decision"), ("cannot trace it", "control flow", "test_tracing.py, line")),
        (Pair("pair"), ("2 images", "something else")),
        (Pair("twice"), ("no width",)),
        (Pair("norm"), ("no width",)),
        (Pair("shuffle"), ("no width",)),
        (Pair("fixed"), ("no width",)),
        (Pair("first"), ("no width",)),
        (Pair("mean"), ("no width",)),
        (Pair("weight"), ("no width",)),
        (Pair(of=traced_networks.Standardised), ("no width",)),
        (Pair(groups=4), ("no width",)),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 5)), ("3x32x32", "shapes cannot be multiplied")),
    ],
    ids=str,
)
def test_refused(network: nn.Module, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        image_view(network.eval(), family_of_module(network), image_families.images())
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "network",
    [
        Pair(),
        Pair("branch"),
        Pair("columns"),
        Pair(padding="same", dilation=2),
        Pair(padding=(2, 1), padding_mode="reflect", stride=(1, 2)),
        Pair(of=traced_networks.Same, stride=2),
        Pair(of=traced_networks.Causal, to=traced_networks.Standardised),
    ],
    ids=str,
)
def test_a_pair_is_found(network: Pair) -> None:
    """Whatever stands between or is a layer, what the consumer reads and its weight make what it gives."""
    view = image_view(network.eval(), family_of_module(network), image_families.images())
    assert [[told(width) for width in row] for row in view.widths] == [["conv 8 one two/1 -"]]
    ((width,),) = view.widths
    with inputs_of([width]) as inputs, torch.no_grad():
        hidden = view.embed(torch.zeros(1, 2, dtype=torch.long))
        view.run(0, hidden)
    layer, x = network.two, inputs[0]
    with torch.no_grad():
        rows_NO = reading.rows(width, x) @ width.consumer_weight.T + layer.bias
        torch.testing.assert_close(rows_NO, layer(x).movedim(1, -1).flatten(0, -2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and the networks as a file of their own."""
    folder = tmp_path_factory.mktemp("traced")
    makers = [
        f"def {kind.__name__.lower()}():\n    torch.manual_seed(0)\n    return {kind.__name__}()\n" for kind in KINDS
    ]
    source = Path(traced_networks.__file__).read_text(encoding="utf-8")
    (folder / "nets.py").write_text(source + "\n\n" + "\n".join(makers), encoding="utf-8")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 128)
    images = rng.integers(0, 56, (128, 32, 32, 3), dtype=np.uint8) + (50 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder


KINDS = list(traced_networks.NETWORKS.values())


@pytest.mark.filterwarnings("ignore:the export saves nothing")
@pytest.mark.parametrize("kind", [kind.__name__.lower() for kind in KINDS])
def test_exports_reload_without_autoprune(
    kind: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    settings = {"model": f"{files}/nets.py:{kind}", "data": str(files / "images.npz"), "levels": 4, **SPLITS}
    assembly = assemble(load_config(None, settings))
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = {"x": pixels}
    dense = assembly.loaded.model(pixels)
    for name, policy in {
        "some": assembly.space.uniform(),
        "least": tuple(len(u.levels) - 1 for u in assembly.space.units),
    }.items():
        export_policy(assembly, make_policy(assembly, policy, {}), tmp_path / name, "module")
        assembly.placer.place(policy)
        expected[name] = assembly.loaded.model(pixels)
        assembly.placer.release()
    torch.testing.assert_close(assembly.loaded.model(pixels), dense)
    save_file(expected, tmp_path / "expected.safetensors")
    script = f"""
import importlib.util, sys, torch
from safetensors.torch import load_file
sys.path.insert(0, {str(files)!r})
import nets
expected = load_file({str(tmp_path / "expected.safetensors")!r})
for name in ("some", "least"):
    spec = importlib.util.spec_from_file_location("load_module", {str(tmp_path)!r} + f"/{{name}}/load_module.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.testing.assert_close(module.load(nets.{kind}())(expected["x"]), expected[name])
assert "autoprune" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_covered_is_told(cli: Callable[..., Answer], files: Path, tmp_path: Path) -> None:
    """Shares of parameters and MACs are those of a count by hand, and what is left out is told with a reason."""
    given = ["--model", f"{files}/nets.py:dense", "--data", files / "images.npz", "--budget", "macs=0.8"]
    options = [*given, "--max-evals", "2", *(f"{name}={value}" for name, value in SPLITS.items())]
    answer = cli("search", *options, "--out", tmp_path / "run", "--json")
    assert answer.status == 0, answer.err
    told = json.loads(answer.out)["coverage"]
    model = traced_networks.Dense()
    layers: Any = model.layers
    inner: list[nn.Module] = [module for layer in layers for module in (layer.conv1, layer.norm2, layer.conv2)]
    params = sum(p.numel() for module in inner for p in module.parameters())
    whole = sum(p.numel() for p in model.parameters())
    macs = 16 * 16 * sum(module.weight.numel() for module in inner if isinstance(module, nn.Conv2d))
    around = 16 * 16 * model.stem.weight.numel() + model.fc.weight.numel()
    assert told["units"] == 2
    assert told["shares"] == pytest.approx({"params": params / whole, "macs": macs / (macs + around)})
    left = {one["why"]: (one["layers"], one["params"]) for one in told["left"]}
    assert left["whose channels are mixed by cat"] == (1, pytest.approx((8 * 27 + 8) / whole))
    assert left["whose outputs the network returns"] == (1, pytest.approx(17 * 5 / whole))
    assert left["of norms"][0] == 2
    assert told["told"] in " ".join(answer.err.split())
    assert "whose channels are mixed by cat" in write_report(tmp_path / "run").read_text(encoding="utf-8")


def test_what_is_left_out_is_told_in_words_that_fit_any_number() -> None:
    left = (
        Left("that are embeddings", 1, 0.21047),
        Left("outside of the blocks", 3, 0.02),
        Left("of small size", 1, 4e-6),
    )
    assert Coverage(60, {"params": 0.789, "macs": 0.802}, left).told() == (
        "60 units of the network can be pruned: 79% of its params and 80% of its macs. Left as they are: 1 layer that "
        "are embeddings (21.0% of the params); 3 layers outside of the blocks (2.0% of the params); "
        "1 layer of small size (less than 0.1% of the params)."
    )


def test_less_than_half_is_a_warning() -> None:
    few = Coverage(1, {"params": 0.6, "macs": 0.07}, ())
    assert few.warning() == (
        "what can be pruned is only 7% of the network's macs: a budget on units bounds that part alone."
    )
    assert Coverage(1, {"params": 0.5, "macs": 0.9}, ()).warning() is None


def test_what_views_its_inputs_goes_every_way(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks may `view` what they are given: images come contiguous to derivatives, the refit, training, timing."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    settings = {"model": f"{files}/nets.py:padded", "data": str(files / "images.npz"), "levels": 3, **SPLITS}
    for criterion, budgets in (("taylor", {"macs": 0.7}), ("obs", {"activation": 0.95})):
        run = tmp_path / criterion
        autoprune.search(**settings, criterion=criterion, budgets=budgets, max_evals=4, out=run)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # some steps teach a random network little
            recovered = autoprune.finetune(run, epochs=1, batch=32, augment=True)
        assert isinstance(recovered.before, ImageMeasurement)
        assert isinstance(recovered.after, ImageMeasurement)
        assert recovered.after.ce <= recovered.before.ce
    assembly, _ = exporting.reopen(tmp_path / "obs")
    network = Network(assembly.view, assembly.space.units, assembly.config.workload_of(), tmp_path, task=assembly.task)
    assert clock(network) > 0
    draw = torch.Generator().manual_seed(0)
    assert augmented(torch.randn(4, 3, 8, 8), draw).is_contiguous()


@pytest.mark.parametrize(("rows", "better"), [(16, False), (2000, True)])
def test_a_consumer_is_refitted_where_that_serves_what_is_held_out(rows: int, better: bool) -> None:
    """Of forty inputs, sixteen rows fit the noise of their targets: then the level's weights are nearly kept."""
    view, draw = image_families.view_of("traced-vgg"), torch.Generator().manual_seed(0)
    width = view.widths[2][0]
    norm: Any = width.norm
    change_DO = 0.3 * torch.randn(40, 14, generator=draw) / 40**0.5

    def drawn(count: int, noise: float) -> tuple[Tensor, Tensor]:
        x_ND = torch.randn(count, 40, generator=draw)
        noise_NO = noise * torch.randn(count, 14, generator=draw)
        return x_ND, norm(width.consumer(x_ND)) + better * x_ND @ change_DO + noise_NO

    pairs, (x_ND, t_NO) = [drawn(rows // 4, 0.3) for _ in range(4)], drawn(1000, 0.0)
    alone = Fit(Affine(width).matrix(), 40)
    for read, written in pairs:
        alone.add(*Affine(width).rows(read, written))
    least_squares = float((Affine(width).rows(x_ND, t_NO)[0] @ alone.solved(RIDGES[0]).float() - t_NO).square().mean())
    before = float((norm(width.consumer(x_ND)) - t_NO).square().mean())
    _refit(Affine(width), pairs, 4)
    after = float((norm(width.consumer(x_ND)) - t_NO).square().mean())
    if better:
        assert after <= 1.01 * least_squares < 0.2 * before
    else:
        assert before == pytest.approx(0, abs=1e-9)
        assert after < 0.02 < least_squares


def test_search_and_fine_tuning(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    settings = {"model": f"{files}/nets.py:mobile", "data": str(files / "images.npz"), "levels": 4, **SPLITS}
    result = autoprune.search(**settings, budgets={"macs": 0.6}, max_evals=20, out=tmp_path / "run")  # type: ignore[arg-type]
    assert result.policy.costs["macs"].policy <= 0.6 * result.policy.costs["macs"].dense
    recovered = autoprune.finetune(tmp_path / "run", epochs=3, batch=32, lr=0.005)
    assert isinstance(recovered.before, ImageMeasurement)
    assert isinstance(recovered.after, ImageMeasurement)
    assert recovered.after.ce < recovered.before.ce
    assert (recovered.path / "model.safetensors").is_file()
