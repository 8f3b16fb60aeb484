"""The message about a budget that no policy meets says what to do."""

from autoprune.unmet import unmet


def test_a_metric_that_nothing_lowers() -> None:
    """As params with `--forms bits`: another bound on it would not help."""
    told = str(unmet("params", 500, 1000, 1000, 0, None))
    assert told.endswith("No level of this search lowers params: bound another metric, or take other --forms.")


def test_a_bound_that_is_too_low() -> None:
    assert str(unmet("params", 500, 600, 1000, 0, None)).endswith("Raise the budget.")
