"""Figures as SVG and PDF: as files, equal for equal figures, and as a part of a page that suits light and dark."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from agents.reporting.figures import INK, style
from dsfp_env.common.files import write_whole

_ID = re.compile(r'(\bid="|href="#|url\(#)')


def as_svg(figure: Any) -> str:
    """A figure as an SVG document, on white."""
    return _saved(figure, "svg", {"Date": None}).decode()


def write_files(folder: Path, name: str, svg: str, figure: Any) -> None:
    """Write ``NAME.svg`` and ``NAME.pdf``, on white, without dates.

    Args:
        folder: To write to.
        name: Of the files.
        svg: The figure, by `as_svg`.
        figure: Of matplotlib.
    """
    pdf = _saved(figure, "pdf", {"CreationDate": None})
    write_whole(folder / f"{name}.svg", lambda file: file.write(svg.encode()))
    write_whole(folder / f"{name}.pdf", lambda file: file.write(pdf))


def inline(svg: str, name: str) -> str:
    """An SVG document as an element of a page, in the page's colour and as wide as there is room.

    Args:
        svg: By `as_svg`.
        name: Of letters; it keeps apart what pictures of one page define.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="patch_1">.*?</g>', "", element, count=1, flags=re.DOTALL)  # the white ground
    element = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg [^>]*?) width="[^"]*"', r'\1 width="100%" role="img"', element, count=1)
    element = element.replace(INK, "currentColor")
    return _ID.sub(rf"\1{name}-", element)


def _saved(figure: Any, kind: str, metadata: dict[str, None]) -> bytes:
    file = io.BytesIO()
    with style():
        figure.savefig(file, format=kind, metadata=metadata, facecolor="white")
    return file.getvalue()
