"""Hugging Face data sets on disk as images: both layouts, which columns, which split, and what is refused."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoprune.data.images import ImageSet, read_images
from autoprune.errors import UserError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
image = pytest.importorskip("PIL.Image")

FILE = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
COUNT = 12


def pictures(channels: int = 3, side: int = 6) -> NDArray[np.uint8]:
    shape = (COUNT, side, side, 3) if channels == 3 else (COUNT, side, side)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def table(pixels: NDArray[np.uint8], features: dict[str, Any] | None = None, **columns: Any) -> Any:
    """As `datasets` writes it, or with columns that differ from that."""
    stored = [{"bytes": encoded(one), "path": f"{i}.png"} for i, one in enumerate(pixels)]
    made = {"image": stored, "label": pa.array([i % 3 for i in range(len(pixels))], pa.int64())} | columns
    written = pa.table({name: column for name, column in made.items() if column is not None})
    noted = json.dumps({"info": {"features": FILE if features is None else features}})
    return written.replace_schema_metadata({"huggingface": noted})


def save_to_disk(written: Any, folder: Path, shards: int = 2) -> Path:
    folder.mkdir(parents=True)
    names, size = [], -(-len(written) // shards)
    for i in range(shards):
        names.append(f"data-{i:05d}-of-{shards:05d}.arrow")
        with pa.OSFile(str(folder / names[-1]), "wb") as stream, pa.ipc.new_stream(stream, written.schema) as writer:
            writer.write_table(written.slice(i * size, size), max_chunksize=5)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FILE}))
    return folder


def save_parquet(written: Any, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(written, file)
    return file


def check(read: ImageSet, pixels: NDArray[np.uint8]) -> None:
    expected = torch.from_numpy(pixels.reshape(*pixels.shape[:3], -1)).permute(0, 3, 1, 2)
    assert torch.equal(read.images, expected)
    assert read.labels.tolist() == [i % 3 for i in range(len(pixels))]


def test_what_save_to_disk_writes(tmp_path: Path) -> None:
    check(read_images(str(save_to_disk(table(pictures()), tmp_path / "set"))), pictures())


def test_the_split_train_or_the_only_one_is_read(tmp_path: Path) -> None:
    save_to_disk(table(pictures()[:4]), tmp_path / "both" / "test")
    save_to_disk(table(pictures()), tmp_path / "both" / "train")
    save_to_disk(table(pictures()), tmp_path / "one" / "validation")
    for name in ("both", "one"):
        (tmp_path / name / "dataset_dict.json").write_text('{"splits": []}')
        check(read_images(str(tmp_path / name)), pictures())
    save_to_disk(table(pictures()), tmp_path / "one" / "test")
    with pytest.raises(UserError, match="the splits test, validation and no train"):
        read_images(str(tmp_path / "one"))


@pytest.mark.parametrize(
    "under", ["data/train-0000{}-of-00002", "train-{}", "default/train/000{}", "part-{}", "train/{}"]
)
def test_layouts_of_parquet(tmp_path: Path, under: str) -> None:
    written = table(pictures())
    save_parquet(written.slice(0, 7), tmp_path / f"{under.format(0)}.parquet")
    save_parquet(written.slice(7), tmp_path / f"{under.format(1)}.parquet")
    if "train" in under:
        save_parquet(written.slice(3), tmp_path / f"{under.format(0).replace('train', 'test')}.parquet")
    save_parquet(written, tmp_path / ".cache" / "train-0.parquet")
    check(read_images(str(tmp_path)), pictures())


def test_one_parquet_file_and_splits_without_train(tmp_path: Path) -> None:
    file = save_parquet(table(pictures()), tmp_path / "data" / "test-0.parquet")
    check(read_images(str(file)), pictures())
    check(read_images(str(tmp_path)), pictures())
    save_parquet(table(pictures()), tmp_path / "data" / "validation-0.parquet")
    with pytest.raises(UserError, match="the splits test, validation and no train"):
        read_images(str(tmp_path))


def test_configurations_are_not_mixed(tmp_path: Path) -> None:
    for name in ("full", "small"):
        save_parquet(table(pictures()), tmp_path / name / "train-0.parquet")
    with pytest.raises(UserError, match="data sets in full, small: give the folder of one"):
        read_images(str(tmp_path))
    check(read_images(str(tmp_path / "full")), pictures())


def test_grey_stays_one_channel_unless_some_are_coloured(tmp_path: Path) -> None:
    grey = pictures(1)
    check(read_images(str(save_parquet(table(grey), tmp_path / "grey.parquet")), [0.5], [0.5]), grey)
    mixed = [{"bytes": encoded(one), "path": None} for one in [*pictures()[:4], *grey[4:]]]
    read = read_images(str(save_parquet(table(grey, image=mixed), tmp_path / "mixed.parquet")))
    assert torch.equal(read.images[:4], torch.from_numpy(pictures()[:4]).permute(0, 3, 1, 2))
    assert torch.equal(read.images[4:], torch.from_numpy(grey[4:])[:, None].expand(-1, 3, -1, -1))


def test_columns_are_found_by_name_feature_or_type(tmp_path: Path) -> None:
    plain = table(pictures())
    stored, labels = plain["image"], plain["label"]
    ids = pa.array(range(100, 100 + COUNT))
    picture = {"picture": {"_type": "Image"}, "sound": {"_type": "Audio"}, "kind": {"_type": "ClassLabel"}}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"image": None, "label": None, "picture": stored, "sound": stored, "kind": labels, "id": ids}),
        ({}, {"image": None, "label": None, "img": stored, "fine_label": labels, "coarse_label": ids}),
        ({}, {"label": None, "labels": labels.cast("uint8"), "id": ids}),
        ({}, {"label": None, "digit": labels}),
        ({}, {"image": pa.array([encoded(one) for one in pictures()])}),
    ]
    for i, (features, columns) in enumerate(cases):
        noted = picture if i == 0 else features
        file = save_parquet(table(pictures(), noted, **columns), tmp_path / f"{i}.parquet")
        check(read_images(str(file)), pictures())


def test_bad_data_sets(tmp_path: Path) -> None:
    def refused(*seen: str, features: dict[str, Any] | None = None, **columns: Any) -> None:
        file = save_parquet(table(pictures(), features, **columns), tmp_path / "bad.parquet")
        raised(file, *seen)

    def raised(path: Path, *seen: str) -> None:
        with pytest.raises(UserError) as error:
            read_images(str(path))
        message = str(error.value)
        assert all(part in message for part in seen), message
        assert "\n" not in message

    stored = [{"bytes": encoded(one), "path": None} for one in pictures()]
    refused("no column of images", "label (int64)", image=None)
    refused("no column of integer labels", "label (string)", label=["a"] * COUNT)
    refused(
        "no column of integer labels",
        "a (int64), b (int64)",
        features={},
        label=None,
        **dict.fromkeys("ab", range(COUNT)),
    )
    refused("row 3", "no label", label=[0, 1, 2, None] * 3)
    refused("row 2", "but a path", image=[*stored[:2], {"bytes": None, "path": "2.png"}, *stored[3:]])
    refused("row 0", "no image", image=[None, *stored[1:]])
    refused("row 1", "cannot be read", image=[stored[0], {"bytes": b"nonsense", "path": None}, *stored[2:]])
    cut = stored[0]["bytes"]
    assert isinstance(cut, bytes)
    refused("row 0", "cannot be read", image=[{"bytes": cut[:60], "path": None}, *stored[1:]])
    refused("row 11", "5x6", "6x6", image=[*stored[:-1], {"bytes": encoded(pictures()[0][:5]), "path": None}])
    deep = encoded(np.zeros((6, 6), dtype=np.uint16))
    refused("row 0", "mode I;16", "8 bits", image=[{"bytes": deep, "path": None}, *stored[1:]])
    refused("cannot be read", label=pa.array([2**63] * COUNT, pa.uint64()))
    raised(save_parquet(table(pictures()).slice(0, 0), tmp_path / "none.parquet"), "no rows")
    whole = (tmp_path / "bad.parquet").read_bytes()
    for name, content in (("cut", whole[:-20]), ("empty", b""), ("text", b"not a data set at all")):
        (tmp_path / f"{name}.parquet").write_bytes(content)
        raised(tmp_path / f"{name}.parquet", f"{name}.parquet", "cannot be read")


def test_damaged_folders_of_save_to_disk(tmp_path: Path) -> None:
    folder = save_to_disk(table(pictures()), tmp_path / "set")
    second = folder / "data-00001-of-00002.arrow"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"data-00001-of-00002.arrow' cannot be read"):
        read_images(str(folder))
    second.unlink()
    with pytest.raises(UserError, match=r"data-00001-of-00002.arrow' cannot be read"):
        read_images(str(folder))
    for text in ("{", "[]", '{"_data_files": null}'):
        (folder / "state.json").write_text(text)
        with pytest.raises(UserError, match=r"state.json' is damaged"):
            read_images(str(folder))
    for name in ("../set/data-00000-of-00002.arrow", str(folder / "data-00000-of-00002.arrow")):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(UserError, match="no file beside it"):
            read_images(str(folder))


def test_data_sets_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parquet(table(pictures()), tmp_path / "train.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'autoprune\[vision\]'"):
        read_images(str(tmp_path))
