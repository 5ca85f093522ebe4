"""HTML and SVG elements out of Python values, with every text escaped."""

from __future__ import annotations

from html import escape

_VOID = {"meta", "br"}


class Markup(str):
    """Text that is markup already; any other `str` is escaped when it becomes part of an element."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: str | float | None) -> Markup:
    """An element with its children.

    Args:
        name: Of the element.
        *children: Markup is taken as it is, text is escaped, None is left out.
        **attributes: `class_` stands for class, `stroke_width` for stroke-width; None is left out.

    Example:
        >>> element("p", "1 < 2", class_="rule")
        '<p class="rule">1 &lt; 2</p>'
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{named}>")
    return Markup(f"<{name}{named}>{join(*children)}</{name}>")


def join(*parts: str | None) -> Markup:
    """Parts one after the other, texts among them escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts if part is not None))


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
