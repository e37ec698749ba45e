"""A page of HTML: what is on it, as plain data, and the template that shows it.

The page needs nothing but itself: no network, no script. All text is escaped; only pictures of our own are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    cells: Sequence[str]
    kind: str = ""  # best, yardstick or alone


@dataclass(frozen=True)
class Table:
    """A table."""

    head: Sequence[str]
    rows: Sequence[Row]
    text: Sequence[str] = ()  # columns, by their heads, that hold text and not numbers
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An SVG element of our own, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Number:
    """A number that is shown large."""

    value: str
    what: str


@dataclass(frozen=True)
class Section:
    """A part of a page, in the order of its fields."""

    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    code: str = ""
    dictionaries: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Page:
    """A page."""

    title: str
    asked: Sequence[str] = ()  # in small
    answers: Sequence[str] = ()  # in large
    numbers: Sequence[Number] = ()
    sections: Sequence[Section] = field(default_factory=list)


def as_html(page: Page) -> str:
    """The page as one HTML document."""
    from markupsafe import Markup

    sections = [
        {**vars(section), "pictures": [{**vars(one), "svg": Markup(one.svg)} for one in section.pictures]}
        for section in page.sections
    ]
    return _template().render({**vars(page), "sections": sections})


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(TEMPLATE)
