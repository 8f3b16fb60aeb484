"""Numbers and times as people write them: `400k`, `1e6`, `10min`, `1h30m`."""

import re

from autoprune.errors import UserError

SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
NUMBER = r"(\d+(?:\.\d+)?)"


def parse_count(text: str) -> int:
    """`400k`, `1.5M`, `1e6`, `400_000`, `400,000` -> a whole number.

    Raises:
        UserError: not of that form, or not whole.
    """
    plain = re.sub(r"(?<=\d)[_,](?=\d{3})", "", text.strip())
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?(?:[eE]\+?\d{1,2})?)\s*([kKmMgGbB]?)", plain)
    number = float(match[1]) * SCALES[match[2].lower()] if match else 0.5
    if not number.is_integer() or abs(number) >= 2**63:
        raise UserError(f"'{text[:100]}' is no whole number, as 1000, 400k, 1.5M or 1e6.")
    return int(number)


def parse_seconds(text: str) -> float:
    """`90`, `90s`, `10min`, `2h`, `1h30m` -> seconds.

    Raises:
        UserError: not of that form.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"-?\d+(\.\d*)?(e\+?\d{1,2})?", plain):
        return float(plain)
    match = re.fullmatch(
        rf"(?:{NUMBER}\s*d(?:ays?)?)?\s*(?:{NUMBER}\s*h(?:ours?)?)?\s*(?:{NUMBER}\s*m(?:in(?:utes?)?)?)?"
        rf"\s*(?:{NUMBER}\s*s(?:ec(?:onds?)?)?)?",
        plain,
    )
    if not plain or match is None:
        raise UserError(f"'{text[:100]}' is no time, as 90, 90s, 10min or 1h30m.")
    return sum(float(part) * scale for part, scale in zip(match.groups(), (86400, 3600, 60, 1), strict=True) if part)
