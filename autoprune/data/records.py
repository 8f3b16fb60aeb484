"""Records with columns: which column is read, and the texts or the chats in it.

A column is chosen by the user (`data_column`) or guessed; where there are several, the guess is told. A chat comes
first, then texts by the names that columns of texts usually have, then the column with the longest texts.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoprune.data.chats import Chat, chat_of
from autoprune.errors import UserError

SAMPLES = 50  # values of a column that are looked at
USUAL = ("text", "content", "document", "article", "body", "passage", "completion", "output", "sentence")
"""Columns of texts that are taken first, in this order."""
SHOWN = 12  # columns in a message


@dataclass(frozen=True)
class Records:
    """Records of a file.

    Args:
        form: what the file is, for messages, as `JSON lines`.
        samples: column -> some of its values, without those that are missing.
        values: the values of a column in every record; None where it is missing.
    """

    form: str
    samples: Mapping[str, Sequence[Any]]
    values: Callable[[str], Iterable[Any]]


@dataclass(frozen=True)
class Column:
    """What was read of records.

    Args:
        name: of the column.
        texts: one for each record that has one; of chats none.
        chats: likewise.
        notices: sentences for the user.
    """

    name: str
    texts: Sequence[str]
    chats: Sequence[Chat]
    notices: tuple[str, ...]


def records_of(form: str, rows: Sequence[Any], called: str) -> Records:
    """Records from what JSON holds: objects, texts, or chats as lists of messages.

    Raises:
        UserError: they are something else, or of several kinds.
    """
    kinds = {_kind(row) for row in rows}
    if len(kinds) > 1 or not kinds <= {"objects", "texts", "chats"}:
        which = "records without names of columns" if len(kinds) == 1 else "records of several kinds"
        raise UserError(
            f"'{called}' holds {which} ({', '.join(sorted(kinds))}): objects or texts are needed, all alike."
        )
    if kinds == {"texts"}:
        rows = [{"text": row} for row in rows]
    elif kinds == {"chats"}:
        rows = [{"messages": row} for row in rows]
    samples: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            known = samples.setdefault(str(name), [])
            if value not in (None, []) and len(known) < SAMPLES:
                known.append(value)
    return Records(form, samples, lambda column: (row.get(column) for row in rows))


def read_column(records: Records, asked: str | None, called: str) -> Column:
    """The texts or the chats of records.

    Args:
        records: the records.
        asked: the column; None guesses.
        called: the name of the data, for messages.

    Raises:
        UserError: there is no such column or none of texts, its values are of several kinds, or no record has any.
    """
    name = _chosen(records, asked, called)
    kind = _kind_of(records.samples[name])
    told = []
    if kind == "chats":
        told.append(f"'{called}' holds chats, which are read through the model's chat template (column '{name}').")
    elif asked is None and len(records.samples) > 1:
        others = [other for other in records.samples if other != name]
        told.append(
            f"'{called}' is read as {records.form}, {kind} from the column '{name}'. Other columns: {_listed(others)}; "
            "data_column=NAME chooses one."
        )
    found: list[Any] = []
    count = 0
    for count, value in enumerate(records.values(name), 1):
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            continue
        if _kind(value) != kind:
            raise UserError(
                f"record {count} of '{called}' holds {_one(value)} in the column '{name}', and those before {kind}: "
                "one kind is needed."
            )
        found.append(chat_of(value) if kind == "chats" else value)
    if not found:
        raise UserError(f"no record of '{called}' has a text in the column '{name}'.")
    if count > len(found):
        told.append(f"{count - len(found):,} of {count:,} records of '{called}' have no text and are left out.")
    return Column(name, found if kind == "texts" else [], found if kind == "chats" else [], tuple(told))


def _chosen(records: Records, asked: str | None, called: str) -> str:
    kinds = {name: _kind_of(values) for name, values in records.samples.items()}
    known = _listed([f"{name} ({kind})" for name, kind in kinds.items()])
    if asked is not None:
        if asked not in kinds:
            near = difflib.get_close_matches(asked, kinds, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(f"'{called}' has no column '{asked}'.{hint} It has: {known}.")
        if kinds[asked] not in ("texts", "chats"):
            raise UserError(f"the column '{asked}' of '{called}' holds {kinds[asked]}, no texts. It has: {known}.")
        return asked
    chats = [name for name, kind in kinds.items() if kind == "chats"]
    texts = [name for name, kind in kinds.items() if kind == "texts"]
    if not chats and not texts:
        raise UserError(f"'{called}' has no column of texts. It has: {known or 'no columns'}.")
    usual = [name for name in USUAL if name in texts]
    longest = sorted(texts, key=lambda name: -sum(map(len, records.samples[name])) / len(records.samples[name]))
    return [*chats, *usual, *longest][0]


def _kind_of(values: Sequence[Any]) -> str:
    """Of a column, by the values that are looked at."""
    kinds = {_kind(value) for value in values}
    return "nothing" if not kinds else kinds.pop() if len(kinds) == 1 else "several kinds"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "texts"
    if chat_of(value) is not None:
        return "chats"
    if isinstance(value, bool):
        return "true and false"
    if isinstance(value, (int, float)):
        return "numbers"
    return {list: "lists", dict: "objects", type(None): "nothing", bytes: "bytes"}.get(
        type(value), type(value).__name__
    )


def _one(value: Any) -> str:
    return f"{value!r:.60} ({_kind(value)})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
