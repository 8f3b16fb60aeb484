"""JSON: a list of objects, texts or chats, or an object that holds one such list (`.json`)."""

from autoprune.data.chats import chat_of
from autoprune.data.file import File
from autoprune.data.reader import Reader
from autoprune.data.records import Records, records_of
from autoprune.errors import UserError
from autoprune.files.reading import parse_json, reason


class JsonList(Reader):
    """Recognised by the name, or by a content that is JSON and begins with a bracket."""

    def recognises(self, file: File) -> bool:
        """By name or content."""
        if file.suffix == ".json":
            return True
        if file.text.lstrip()[:1] not in ("{", "["):
            return False
        try:
            return isinstance(parse_json(file.text), (dict, list))
        except ValueError:
            return False

    def read(self, file: File) -> Records:
        """The records of the list."""
        try:
            data = parse_json(file.text)
        except ValueError as error:
            raise UserError(f"'{file.called}' cannot be read as JSON: {reason(error)}.") from error
        if isinstance(data, dict):
            lists = [value for value in data.values() if isinstance(value, list) and value]
            data = lists[0] if len(lists) == 1 and not isinstance(lists[0][0], str) else [data]
        if not isinstance(data, list) or not data:
            raise UserError(f"'{file.called}' is JSON without records: a list of objects or of texts is needed.")
        if chat_of(data) is not None:  # a list of messages is one chat
            data = [data]
        return records_of("JSON", data, file.called)
