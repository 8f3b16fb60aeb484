"""The default text: what it holds, how it splits, what happens without it."""

from pathlib import Path

import pytest

from autoprune.data import python_docs
from autoprune.errors import UserError


def test_documents_are_sorted_named_and_split() -> None:
    docs = python_docs.documents()
    names = [name for name, _ in docs]
    assert names == sorted(set(names))
    assert "json.decoder" in names
    assert any(name.startswith("topics:") for name in names)
    assert "json.decoder.JSONDecoder.decode\nReturn the Python" in dict(docs)["json.decoder"]

    held = [text for name, text in docs if python_docs.is_held_out(name)]
    share = sum(map(len, held)) / sum(len(text) for _, text in docs)
    assert 0.2 < share < 0.35
    assert python_docs.held_out_text() == "\n\n".join(held)


def test_long_paragraphs_appear_once() -> None:
    long = "one two three four five six seven " * 3
    pairs = [("a", f"A\n\n{long}"), ("b", f"{long.upper()}\n\nB"), ("c", f"C\n\n  {long}")]
    kept = dict(python_docs.drop_repeats(pairs))
    assert kept == {"a": f"A\n\n{long}", "b": f"{long.upper()}\n\nB", "c": "C"}


def test_sources_are_found_and_parsed(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    (package / "tests").mkdir(parents=True)
    (package / "tests" / "left_out.py").write_text('"""Not read."""')
    (package / "__init__.py").write_text(
        '"""Pack."""\nif True:\n    class A:\n        def f(self):\n            """Do f."""\n'
    )
    (package / "broken.py").write_text("def (")
    files = dict(python_docs.source_files(tmp_path))
    assert list(files) == ["pack", "pack.broken"]
    entries = list(python_docs.docstrings("pack", files["pack"].read_bytes()))
    assert entries == [("pack", "Pack."), ("pack.A.f", "Do f.")]
    assert list(python_docs.docstrings("pack.broken", b"def (")) == []


def test_a_python_without_documentation_asks_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_docs, "_documents", lambda: ())
    python_docs.held_out_text.cache_clear()
    with pytest.raises(UserError, match="--data FILE"):
        python_docs.held_out_text()
    assert python_docs.documents() == []
