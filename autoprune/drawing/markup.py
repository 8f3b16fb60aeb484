"""HTML and SVG that is escaped unless it was made here."""

import html
import re

VOID = {"meta"}
SHAPES = {"circle", "line", "path", "rect"}  # of SVG, which may close themselves
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML, and so in SVG


class Markup(str):
    """Text that is HTML already. Whatever else is put into a page is text of a user's."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as escaped text; markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def join(*parts: object) -> Markup:
    """Parts one after another, escaped; None is left out."""
    return Markup("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: markup, or text that is escaped; None is left out.
        attributes: `class_` is class, `aria_label` is aria-label; None is left out, floats are rounded to a tenth.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    if name in SHAPES and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(value: object) -> object:
    return f"{round(value, 1) + 0.0:g}" if isinstance(value, float) else value
