"""Every loader against damaged files: a few thousand seeded mutations, each of which loads or is a UserError.

Bytes are flipped, cut, doubled and replaced; records have their values replaced by what breaks code that trusts them.
Nothing may hang or take much memory: the process may not have a gigabyte more than it begins with.
"""

import ast
import copy
import io
import json
import random
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from autoprune import display
from autoprune.agents import weights
from autoprune.budgets import roofline, table
from autoprune.budgets.latency_table import load_table
from autoprune.comparing.plan import ComparisonPlan
from autoprune.comparing.results import is_finished, load_results, outcome_of
from autoprune.config import SearchConfig, load_config
from autoprune.data import folders, images
from autoprune.envs.observation import NAMES
from autoprune.errors import UserError
from autoprune.journal import Journal
from autoprune.level import group_levels
from autoprune.levels.seal import sealed
from autoprune.levels.store import LevelStore, file_of
from autoprune.policy import Policy
from autoprune.recovery.result import read_finetuned
from autoprune.reports.page import render, write_report
from autoprune.reports.run import read_run
from autoprune.space import Unit
from autoprune.space_file import load_space, words_of_run
from autoprune.task_choice import task_of
from autoprune.training.state import OF_EARLIER_FILES, done
from autoprune.written import parse_override
from tests.test_architecture import MODULES
from tests.test_report import make_comparison, make_run

BYTES, RECORDS = 60, 90
"""Mutations of each file's bytes, and of its record."""
MEMORY = 2**30
NASTY: list[Any] = [
    None, True, -1, 0, 10**9, 10**30, -(2**63), 1e308, 0.5, "", "x", "-1", "1e999", "\x1b[31m", "a" * 5000, "../..",
    [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "2", None], "0-999999999", "\ud800",
]  # fmt: skip
TEXTS = [
    b"", b"\0", b"[" * 100_000, b'{"a":' * 10_000, b"1" * 5000, b"NaN", b"[Infinity]", b'{"a": 1e999}', b"\xff\xfe",
    b"a: &a [*a]\n", b"!!python/object/apply:os.system [id]", b"? [a]\n: b", b"2026-11-28", b"{{[[", b"- " * 20_000,
    b'"\\ud800"', b"!!binary 'a'", b"!!int 'x'", b"!!float 'x'", b"!!timestamp 'x'", b"<<: 1", b"<<: [1]", b"=",
    b"!!set {a}", b"&a [x, x]\n", b"k: 0x" + b"f" * 5000, b"k: 1:2:3", b"k: .inf", b"k: 1e400", b"k: -.nan",
    # what an alias names is written out ten times, ten times over
    b"a0: &a0 x\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)),
]  # fmt: skip


@dataclass(frozen=True)
class Loader:
    """Something that reads a file.

    Args:
        file: a sound one.
        load: reads it where it is, and does with it what is done first.
        dump: a record as the file's bytes; None where the file is no record.
    """

    file: Path
    load: Callable[[], object]
    dump: Callable[[Any], bytes] | None = None


def as_json(record: Any) -> bytes:
    return json.dumps(record).encode()


def as_yaml(record: Any) -> bytes:
    return yaml.safe_dump(record).encode()


def as_lines(record: Any) -> bytes:
    return b"".join(as_json(line) + b"\n" for line in record) if isinstance(record, list) else as_json(record)


def parsed(loader: Loader) -> Any:
    """The sound record."""
    text = loader.file.read_text()
    if loader.dump is as_lines:
        return [json.loads(line) for line in text.splitlines()][:6]
    return yaml.safe_load(text) if loader.dump is as_yaml else json.loads(text)


def damaged_bytes(sound: bytes, rng: random.Random) -> Iterator[bytes]:
    """The file with some bytes changed."""
    yield from TEXTS
    for _ in range(BYTES):
        data = bytearray(sound)
        for _ in range(rng.choice([1, 1, 3, 20])):
            at = rng.randrange(len(data)) if data else 0
            if rng.random() < 0.5:
                at = min(at, rng.randrange(400))  # headers are at the beginning
            change = rng.randrange(5)
            if change == 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            elif change == 1:
                del data[at : at + rng.randrange(1, 50)]
            elif change == 2:
                data[at:at] = data[at : at + rng.randrange(50)]
            elif change == 3:
                del data[at:]
            else:
                data[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"99999999", b"-1      "])
        yield bytes(data)


def damaged_records(sound: Any, rng: random.Random) -> Iterator[Any]:
    """The record with a value replaced, removed or wrapped."""
    yield from NASTY
    for _ in range(RECORDS):
        record = copy.deepcopy(sound)
        for _ in range(rng.choice([1, 1, 2])):
            places = list(_places(record))
            if not places:
                break
            holder, key = rng.choice(places)
            change = rng.randrange(4)
            if change == 0:
                del holder[key]
            elif change == 1:
                holder[key] = [holder[key]]
            else:
                holder[key] = copy.deepcopy(rng.choice(NASTY))
        yield record


def _places(record: Any) -> Iterator[tuple[Any, Any]]:
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield record, key
        yield from _places(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def loaders(folder: Path) -> dict[str, Loader]:
    """Of every kind of file, a sound one and who reads it."""
    run, compared = make_run(folder / "run"), make_comparison(folder / "compared")
    one = make_run(compared / "random-s0")
    (one / "curve.json").write_text("[[64, 0.5, 2.0], [128, 1.0, null]]")
    SearchConfig(agent="random").save(compared / "config.yaml")
    (compared / "compare.yaml").write_text("agents: [random]\nseeds: [0]\n")
    (run / "finetuned").mkdir(exist_ok=True)
    numbers = {"ce": 1.0, "accuracy": 0.5}
    recovered = {"tuning": {"epochs": 1}, "dense": numbers, "before": numbers, "after": numbers, "seconds": 1.0}
    made = {"run/finetuned/result.json": as_json(recovered)}
    device = {"mine": {"flops": {"float32": 1e12}, "bandwidth": 1e11, "launch": 1e-6}}
    made["devices.yaml"] = as_yaml(device)
    made["table.csv"] = b"unit,kept,cost\nmlp,2,0.5\nmlp,1,0.25\n"
    times = {"units": ["0.mlp"], "kept": [0, 2], "ms": [0.0, 1.0]}
    checked = [{"network": "dense", "predicted": 1.0, "measured": 1.1}]
    latency = {"schema": "autoprune.latency/1", "measured_on": {}, "fixed": 1.0, "classes": [times], "checks": checked}
    made["latency.json"] = as_json(latency)
    made["model/config.json"] = as_json({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    scales = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "rescale_factor": 1 / 255}
    made["model/preprocessor_config.json"] = as_json(scales)
    made["override"] = as_yaml({"key": [1, 2.5, "x"]})
    for name, data in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    load_images(folder)
    unit = Unit("0.mlp", "mlp", 0, 4, group_levels(4, (4, 2, 0)), 10)
    store = make_store(folder / "store", unit)
    model: Any = SimpleNamespace(policy=torch.nn.Linear(3, 2))
    of_agent = {"algorithm": "PPO", "observation": json.dumps(NAMES)}
    save_file(model.policy.state_dict(), folder / "agent.safetensors", of_agent)
    told = {"step": "3", "tuning": "{}", "mark": "m"}
    tuning = OF_EARLIER_FILES
    (folder / "state").mkdir()
    save_file({"network.w": torch.zeros(3)}, folder / "state" / "state.safetensors", told)

    def shown() -> None:
        display.print_policy(Policy.load(run / "policy.json"))

    def finished() -> None:
        if is_finished(one):
            outcome_of(one)

    def results() -> None:
        display.print_comparison(load_results(compared))
        write_report(compared, folder / "league.html")

    def report() -> None:
        write_report(run, folder / "run.html")

    def space() -> None:
        words_of_run(run)
        load_space(run / "space.json")
        report()

    def fine_tuning() -> None:
        read_finetuned(run)
        report()

    def journal() -> None:
        Journal(run / "journal.jsonl", json.loads(SUBJECT.get("line", "{}")).get("subject", "")).close()

    SUBJECT["line"] = (run / "journal.jsonl").read_text().splitlines()[0]
    return {
        "policy": Loader(run / "policy.json", shown, as_json),
        "space": Loader(run / "space.json", space, as_json),
        "result": Loader(run / "result.json", report, as_json),
        "config": Loader(run / "config.yaml", lambda: load_config(run / "config.yaml").fractions(), as_yaml),
        "journal": Loader(run / "journal.jsonl", journal, as_lines),
        "journal of a report": Loader(run / "journal.jsonl", lambda: render(read_run(run)), as_lines),
        "fine-tuning": Loader(run / "finetuned/result.json", fine_tuning, as_json),
        "league": Loader(compared / "league.json", results, as_json),
        "plan": Loader(compared / "compare.yaml", lambda: ComparisonPlan.load(compared), as_yaml),
        "result of a comparison": Loader(one / "result.json", finished, as_json),
        "policy of a comparison": Loader(one / "policy.json", finished, as_json),
        "curve": Loader(one / "curve.json", finished, as_json),
        "devices": Loader(folder / "devices.yaml", lambda: roofline.read_devices(folder / "devices.yaml"), as_yaml),
        "table": Loader(folder / "table.csv", lambda: table.read(folder / "table.csv")),
        "latency": Loader(folder / "latency.json", lambda: told_as_user_error(folder / "latency.json"), as_json),
        "model": Loader(folder / "model/config.json", lambda: task_of(None, str(folder / "model")), as_json),
        "preprocessor": Loader(
            folder / "model/preprocessor_config.json", lambda: images.preprocessing(str(folder / "model")), as_json
        ),
        "override": Loader(
            folder / "override",
            lambda: parse_override("a=" + (folder / "override").read_bytes().decode("utf-8", "replace")),
            as_yaml,
        ),
        "images": Loader(folder / "images.npz", lambda: images.read_images(str(folder / "images.npz"), [0.5], [0.5])),
        "pictures": Loader(
            folder / "pictures/a/0.png", lambda: images.read_images(str(folder / "pictures"), [0.5], [0.5])
        ),
        "state of a data set": Loader(folder / "saved/state.json", lambda: folders.files_of(folder / "saved"), as_json),
        "manifest": Loader(store / "manifest.json", lambda: LevelStore(store, [unit]), as_json),
        "levels": Loader(store / "0.mlp.safetensors", lambda: LevelStore(store, [unit])),
        "agent": Loader(folder / "agent.safetensors", lambda: weights.load(model, folder / "agent.safetensors", "PPO")),
        "state": Loader(
            folder / "state/state.safetensors",
            lambda: done(folder / "state", tuning, "m"),
        ),
    }


SUBJECT: dict[str, str] = {}


def told_as_user_error(path: Path) -> None:
    """As callers of `load_table` do."""
    try:
        load_table(path)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error


def load_images(folder: Path) -> None:
    """Small sound files of images."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(20 * 8 * 8 * 3, dtype=np.uint8).reshape(20, 8, 8, 3)
    np.savez_compressed(folder / "images.npz", images=pixels, labels=np.arange(20) % 2)
    (folder / "pictures" / "a").mkdir(parents=True)
    image.fromarray(pixels[0]).save(folder / "pictures/a/0.png")
    (folder / "saved").mkdir()
    (folder / "saved/state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


def make_store(path: Path, unit: Unit) -> Path:
    """A level store of one unit."""
    path.mkdir()
    save_file({"order": torch.tensor([2, 0, 3, 1]), "level.1": torch.zeros(3, 2)}, path / file_of(unit))
    known = dict.fromkeys(("weight_rms", "weight_spread", "weight_kurtosis", "pq_index"), 0.5)
    known |= {"activation_rms": 1.0, "activation_rank": 0.5}
    manifest = {
        "version": 4, "units": [unit.name], "files": [sealed(path / file_of(unit))],
        "statistics": [known | {"output_errors": [0.0, 0.5, 1.0]}],
    }  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_whatever_is_in_a_file_it_loads_or_gets_a_sentence(
    loaders: dict[str, Loader], capsys: pytest.CaptureFixture[str]
) -> None:
    rng, begun = random.Random(0), time.process_time()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    counts, wrong = {"loaded": 0, "refused": 0}, []
    try:
        for name, loader in loaders.items():
            loader.load()  # the sound one
            sound = loader.file.read_bytes()
            tries = [(data, data[:200]) for data in damaged_bytes(sound, rng)]
            if loader.dump is not None:
                for record in damaged_records(parsed(loader), rng):
                    tries.append((loader.dump(record), loader.dump(record)[:2000]))
            for data, shown in tries:
                loader.file.write_bytes(data)
                at = time.process_time()
                try:
                    loader.load()
                    counts["loaded"] += 1
                except UserError as error:
                    counts["refused"] += 1
                    if len(str(error)) > 3000:
                        wrong.append((name, "a long sentence", shown))
                except Exception as error:
                    wrong.append((name, repr(error)[:200], shown))
                if time.process_time() - at > 5:
                    wrong.append((name, f"{time.process_time() - at:.1f} s", shown))
            loader.file.write_bytes(sound)
            loader.load()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    capsys.readouterr()
    assert not wrong, "\n".join(map(str, wrong[:40])) + f"\n{len(wrong)} in all"
    assert sum(counts.values()) > 3000
    assert counts["refused"] > counts["loaded"] / 2
    assert time.process_time() - begun < 60


def bomb(shape: str, size: int) -> bytes:
    """A `.npz` with an array of zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        for name in ("images", "labels"):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
                for _ in range(size // 2**20):
                    member.write(b"\0" * 2**20)
    return out.getvalue()


@pytest.mark.parametrize(
    ("shape", "size", "seen"),
    [
        ("(4096, 256, 256, 3)", 2**20 * 768, "unpacks"),
        ("(10000000, 1000, 1000, 3)", 2**20, "is to have 30,000,000,000,000 bytes"),
        ("(-1, 8, 8, 3)", 2**20, "shape"),
        ("(True,)", 2**20, "bytes"),
    ],
)
def test_gigabytes_behind_a_few_kilobytes(tmp_path: Path, shape: str, size: int, seen: str) -> None:
    (tmp_path / "bomb.npz").write_bytes(bomb(shape, size))
    with pytest.raises(UserError, match=seen):
        images.read_images(str(tmp_path / "bomb.npz"))


def test_arrays_of_objects_and_other_members(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", images=np.array([{}]), labels=np.array([0]))
    with pytest.raises(UserError, match="no numbers"):
        images.read_images(str(tmp_path / "objects.npz"))
    with zipfile.ZipFile(tmp_path / "members.npz", "w") as file:
        file.writestr("images", b"x")
        file.writestr("labels", b"x")
    with pytest.raises(UserError, match="are needed"):
        images.read_images(str(tmp_path / "members.npz"))


def test_a_picture_of_gigabytes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "set" / "a").mkdir(parents=True)
    image.new("1", (20_000, 20_000)).save(tmp_path / "set" / "a" / "0.png")
    with pytest.raises(UserError, match="pixels"):
        images.read_images(str(tmp_path / "set"))


@pytest.mark.parametrize("name", ["fifo", "folder", "x" * 300, "loop"])
def test_what_is_no_file(tmp_path: Path, name: str, cli: Callable[..., Any], quick_arguments: list[str]) -> None:
    """A pipe that nobody writes to does not hold up anything."""
    import os

    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    elif name == "loop":
        path.symlink_to(path)
    for command in (
        ["show", path], ["report", path], ["search", "--config", path], ["search", "--model", path], ["resume", path],
        ["search", "--data", path], ["search", *quick_arguments, "--budget", f"{path}.csv=0.5"],
        ["export", path, tmp_path / "out"],
        ["evaluate", path], ["finetune", path, "--epochs", "0"], ["dashboard", path], ["search", "--pretrained", path],
        ["search", "--data", path, "--model", "tiny-cnn"], ["search", "--agent", f"{path}.py:Agent"],
        ["compare", "--config", path],
        ["search", *quick_arguments, "--budget", "roofline=0.5", f"workload.hardware={path}.yaml"],
        ["report", tmp_path, "--out", path / "x"], ["search", "--out", path / "x" if name != "folder" else "/proc/x"],
    ):  # fmt: skip
        answer = cli(*command, *(["--agent", "ppo"] if "--pretrained" in command else []))
        assert answer.status == 2, (command, answer)
        assert answer.err.strip().splitlines()[-1].startswith("autoprune: error: ")


READERS = {"autoprune.files.reading", "autoprune.files.arrays"}
BANNED = {
    "json": {"load", "loads"}, "yaml": {"load", "safe_load", "load_all", "safe_load_all"},
    "np": {"load", "fromfile", "loadtxt", "genfromtxt"}, "numpy": {"load"}, "torch": {"load"}, "Image": {"open"},
    "zipfile": {"ZipFile"}, "pickle": {"load", "loads"},
}  # fmt: skip
ALONE = {"safe_open", "load_file", "model_validate_json", "validate_json"}
SHIPPED = {"autoprune.exporters.load_module"}
"""Stands in exports and runs without autoprune."""
ASKING = {"autoprune.networks.recognise"}
"""Ask what a file is, to say what is to be done with it, and use nothing of it."""

OWN_TEXT = {"autoprune.recovery.job", "autoprune.exporters.gguf.vocabulary"}
"""Read no file of a user: the lines of their own workers, where a measure may be NaN, and what tokenizers writes."""


def test_there_is_one_reader_of_each_kind() -> None:
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            owner = function.value if isinstance(function, ast.Attribute) else None
            name = getattr(function, "attr", getattr(function, "id", ""))
            if name in ALONE or (isinstance(owner, ast.Name) and name in BANNED.get(owner.id, ())):
                found.add(module)
    assert found == READERS | SHIPPED | ASKING | OWN_TEXT
