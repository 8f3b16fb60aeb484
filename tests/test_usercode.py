"""What messages say of a user's code: which callable, where it is, what it raised and where."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune import registry
from autoprune.errors import LimitReached, UserError
from autoprune.usercode import LONGEST, call, located, told

SOURCE = '''"""A file of a user's."""
import functools
import json

def double(function):
    @functools.wraps(function)
    def doubled(*args):
        return 2 * function(*args)
    return doubled

def share(a, b):
    return a / b

@double
def doubled_share(a, b):
    return share(a, b)

def parsed(text):
    return json.loads(text)

class Share:
    def __call__(self, a, b):
        return share(a, b)

    def method(self, a, b):
        return share(a, b)

instance = Share()
half = functools.partial(share, b=2)
doubled_half = functools.partial(doubled_share, 2)
unnamed = lambda a, b: a / b
'''

Part = Callable[[str], Any]


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """A callable of `own.py` in the working directory, by name."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(SOURCE)
    return lambda name: registry.load("budgets", f"own.py:{name}")


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("share", "'share' (own.py, line 11)"),
        ("half", "'share' (own.py, line 11)"),
        ("doubled_share", "'doubled_share' (own.py, line 14)"),
        ("doubled_half", "'doubled_share' (own.py, line 14)"),
        ("unnamed", "'<lambda>' (own.py, line 31)"),
        ("Share", "'Share'"),
        ("instance", "'Share'"),
    ],
)
def test_a_callable_is_named_with_its_place(part: Part, name: str, seen: str) -> None:
    assert located(part(name)) == seen


def test_a_method_is_named_with_its_place(part: Part) -> None:
    assert located(part("instance").method) == "'method' (own.py, line 25)"


def test_what_has_no_source_is_named_alone() -> None:
    namespace: dict[str, Any] = {}
    exec("def typed(): pass", namespace)
    assert located(max) == "'max'"
    assert located(namespace["typed"]) == "'typed'"


def test_a_file_outside_of_the_working_directory_is_named_in_full(part: Part, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")  # `part` goes back
    assert located(registry.load("budgets", "../own.py:share")) == f"'share' ({tmp_path}/own.py, line 11)"


def test_a_call_gives_what_the_function_returns(part: Part) -> None:
    assert call("budget", part("share"), 1, b=2) == 0.5


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("share", "the budget 'share' (own.py, line 11) raised ZeroDivisionError at own.py, line 12: "),
        ("doubled_share", "the budget 'doubled_share' (own.py, line 14) raised ZeroDivisionError at own.py, line 12: "),
        ("instance", "the budget 'Share' raised ZeroDivisionError at own.py, line 12: "),
    ],
)
def test_an_exception_is_told_with_its_place(part: Part, name: str, seen: str) -> None:
    with pytest.raises(UserError) as raised:
        call("budget", part(name), 1, 0)
    assert str(raised.value) == f"{seen}division by zero."
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_the_place_is_in_the_functions_own_file_though_a_library_raised(part: Part) -> None:
    with pytest.raises(UserError, match=r"raised JSONDecodeError at own\.py, line 19: Expecting value"):
        call("reward", part("parsed"), "nothing")


def test_without_a_line_of_its_own_the_place_is_where_it_was_raised(part: Part) -> None:
    with pytest.raises(UserError, match=r"the reward 'reduce' raised ZeroDivisionError at own\.py, line 12: "):
        call("reward", functools.reduce, part("share"), [1, 0])


def test_a_call_that_does_not_fit_has_no_place(part: Part) -> None:
    with pytest.raises(UserError, match=r"line 11\) raised TypeError: share\(\) missing 1 required .*'b'\.$"):
        call("budget", part("share"), 1)


@pytest.mark.parametrize("error", [UserError, LimitReached, KeyboardInterrupt, SystemExit])
def test_ends_and_clear_sentences_pass(error: type[BaseException]) -> None:
    def function() -> None:
        raise error("as it is")

    with pytest.raises(error, match=r"^as it is$"):
        call("budget", function)


def test_a_message_is_one_short_line() -> None:
    assert told(ValueError("of two\n  lines.")) == "ValueError: of two lines"
    assert told(ValueError()) == "ValueError"
    assert len(told(ValueError("word " * 1000))) < LONGEST + 20
