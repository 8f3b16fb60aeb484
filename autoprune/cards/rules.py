"""What hubs accept in a card's metadata, checked without a network.

The rules are those of huggingface.co as it publishes them. Metadata of the dense network's own card are somebody
else's: what breaks a rule is left out, and an unknown licence becomes `other` with its name.
"""

import re
from collections.abc import Mapping
from typing import Any

_LISTED = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-
openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-
by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-
nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-
permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
unknown other
"""
LICENSES = frozenset(_LISTED.split())
"""Licences that hubs list; any other is `other`."""
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|code|multilingual")
REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
LICENSE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
LINK = re.compile(r"https?://[^\s<>\"'`\\()\[\]{}|]{1,500}|[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
"""A page, or a file of the repository."""
RELATIONS = ("adapter", "merge", "quantized", "finetune")
"""What `base_model_relation` may be. A pruned network is none of them; one that was trained afterwards is a `finetune`.
"""
WORD = re.compile(r"[A-Za-z0-9][\w.+ -]{0,95}", re.ASCII)


def carried(head: Mapping[str, Any]) -> dict[str, Any]:
    """What of the metadata of a dense network's card is true of a pruned one too, and keeps the rules."""
    found: dict[str, Any] = _license(head)
    languages = _texts(head.get("language"), LANGUAGE)
    if languages:
        found["language"] = languages[0] if isinstance(head["language"], str) else languages
    bases = _texts(head.get("base_model"), REPOSITORY)
    if bases:
        found["base_model"] = bases[0] if isinstance(head["base_model"], str) else bases
    return found


def broken(data: Mapping[str, Any]) -> list[str]:
    """The keys of a card's metadata whose values a hub would refuse."""
    checks = {
        "license": lambda value: value in LICENSES,
        "license_name": lambda value: _is(value, LICENSE_NAME),
        "license_link": lambda value: _is(value, LINK),
        "language": lambda value: _all(value, LANGUAGE),
        "base_model": lambda value: _all(value, REPOSITORY),
        "base_model_relation": lambda value: value in RELATIONS,
        "library_name": lambda value: _is(value, WORD),
        "pipeline_tag": lambda value: _is(value, WORD),
        "tags": lambda value: isinstance(value, list) and _all(value, WORD),
        "model-index": _is_index,
    }
    return [key for key, value in data.items() if key not in checks or not checks[key](value)]


def _license(head: Mapping[str, Any]) -> dict[str, Any]:
    """The licence; one that hubs do not list keeps its name."""
    given = head.get("license")
    if isinstance(given, list) and len(given) == 1:
        (given,) = given
    if not isinstance(given, str) or not given.strip():
        return {}
    own = given.strip().lower()
    named = str(head.get("license_name") or "").strip().lower() if own == "other" else own
    found = {"license": own if own in LICENSES else "other"}
    if found["license"] != "other":
        return found
    if LICENSE_NAME.fullmatch(named):
        found["license_name"] = named
    if _is(head.get("license_link"), LINK):
        found["license_link"] = head["license_link"]
    return found


def _texts(value: Any, form: re.Pattern[str]) -> list[str]:
    several = value if isinstance(value, list) else [value]
    return [one for one in several if _is(one, form)][:100]


def _is(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _all(value: Any, form: re.Pattern[str]) -> bool:
    several = value if isinstance(value, list) else [value]
    return bool(several) and all(_is(one, form) for one in several)


def _is_index(value: Any) -> bool:
    """Whether results have a name, a task, a data set and numbers."""
    try:
        return all(
            isinstance(one["name"], str)
            and all(
                _is(row["task"]["type"], WORD)
                and isinstance(row["dataset"]["type"], str)
                and isinstance(row["dataset"]["name"], str)
                and all(isinstance(m["type"], str) and isinstance(m["value"], int | float) for m in row["metrics"])
                for row in one["results"]
            )
            for one in value
        )
    except (KeyError, TypeError):
        return False
