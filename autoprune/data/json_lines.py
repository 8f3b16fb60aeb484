"""JSON lines: one JSON object, text or chat in each line (`.jsonl`, `.ndjson`)."""

import io
import itertools

from autoprune.data.file import File
from autoprune.data.reader import Reader
from autoprune.data.records import Records, records_of
from autoprune.errors import UserError
from autoprune.files.reading import parse_json, reason

ROWS = 50  # from the start that are looked at
SUFFIXES = (".jsonl", ".ndjson")


class JsonLines(Reader):
    """Recognised by the name, or by first lines that are all JSON objects or lists."""

    def recognises(self, file: File) -> bool:
        """By name or content."""
        if file.suffix in SUFFIXES:
            return not _is_one_document(file.text)
        lines = list(itertools.islice((line for line in io.StringIO(file.text) if line.strip()), ROWS))
        kinds = (dict, list, str) if file.suffix == ".json" else (dict, list)  # a quoted line may be plain text
        if lines[0].lstrip()[:1] not in ("{", "[", '"'):
            return False
        if len(lines) == 1 and (file.suffix == ".json" or lines[0].lstrip().startswith("[")):
            return False  # one document
        try:
            return all(isinstance(parse_json(line), kinds) for line in lines)
        except ValueError:
            return False

    def read(self, file: File) -> Records:
        """One record for each line that is not blank."""
        rows = []
        for number, line in enumerate(io.StringIO(file.text), 1):
            if not line.strip():
                continue
            try:
                rows.append(parse_json(line))
            except ValueError as error:
                raise UserError(
                    f"line {number} of '{file.called}' cannot be read as JSON lines: {reason(error)}."
                ) from error
        return records_of("JSON lines", rows, file.called)


def _is_one_document(text: str) -> bool:
    """Whether a text is one JSON document of several lines, whatever its name says."""
    first = text.lstrip().partition("\n")[0].strip()
    if first[:1] not in ("{", "["):
        return False
    try:
        return isinstance(parse_json(first), list)  # a list in one line holds the records
    except ValueError:
        try:
            parse_json(text)
        except ValueError:
            return False
        return True
