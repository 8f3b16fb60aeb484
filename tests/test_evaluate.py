"""`autoprune.evaluate` in Python: of a run, of an export, and of neither."""

from pathlib import Path

import pytest

import autoprune


@pytest.mark.filterwarnings("ignore:the export saves nothing:UserWarning")
def test_a_run_and_its_export_are_alike(finished_run: Path, text_file: str, tmp_path: Path) -> None:
    policy = autoprune.Policy.load(finished_run / "policy.json")
    run = autoprune.evaluate(finished_run)
    assert run["cross_entropy"] == pytest.approx(policy.losses["validation"]["best"]["ce"], rel=1e-5)
    from autoprune.exporting import export_run

    path = export_run(finished_run, tmp_path / "smaller", "hf").path
    of_run, of_export = (
        autoprune.evaluate(finished_run, text_file, max_sequences=4),
        autoprune.evaluate(path, text_file, sequence_length=32, max_sequences=4),
    )
    assert of_export["cross_entropy"] == pytest.approx(of_run["cross_entropy"], rel=1e-4)
    assert of_export["params"] == of_run["params"]
    assert of_export["tokens"] == of_run["tokens"] == 4 * 32


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(autoprune.UserError, match=str(tmp_path)):
        autoprune.evaluate(tmp_path / "nowhere")
