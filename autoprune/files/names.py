"""Names that become files and folders."""

import hashlib
import re

LONGEST = 80


def slug(name: str) -> str:
    """A name as a part of a file's name: letters, digits, `_`, `.` and `-`, at most 80 of them.

    A name of that form stays as it is. Of any other, what does not fit becomes `_` and a hash of the name is added, so
    that two names never share a file: `tab/lat.csv` is `tab_lat.csv-` and eight hexadecimal digits.
    """
    fitting = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip(".-")
    if fitting == name and 0 < len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{fitting[: LONGEST - 9]}-{digest}" if fitting else digest
