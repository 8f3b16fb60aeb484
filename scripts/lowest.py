"""The lowest versions that pyproject.toml allows, as constraints for pip: what CI tests besides the newest ones.

Of a version that is allowed from `2.0` on, the releases `2.0.*` are taken: some packages have no `2.0` itself.

    python scripts/lowest.py > lowest.txt && pip install -c lowest.txt -e '.[dev]'
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(requirements: list[str]) -> Iterator[tuple[str, str]]:
    """`numpy>=2.0,<3` -> `numpy==2.0.*`; what has no lower limit is left to pip."""
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)", requirement)
        if match:
            yield match[1], match[2]


def main() -> None:
    """Print them, one a line; of two limits on one package the higher."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found: dict[str, str] = {}
    for name, version in lowest([*project["dependencies"], *(one for extra in extras.values() for one in extra)]):
        found[name] = max(found.get(name, "0"), version, key=lambda text: [int(part) for part in text.split(".")])
    print("\n".join(f"{name}=={version}.*" for name, version in found.items()))


if __name__ == "__main__":
    main()
