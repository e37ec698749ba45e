"""What MkDocs does not do by itself: files beside the docs as pages, formulas as MathML, nothing from other hosts.

The pages are also read on GitHub, where links go to any file of the repository. On the site such a file is a page,
below `source/`; the changelog and what contributors read have places of their own.
"""

from __future__ import annotations

import html
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}  # of the repository -> of the site
LINK = re.compile(r"(?<=\]\()(?!https?://|mailto:|#)([^)#\s]+)(?=(#[^)\s]*)?\))")
LANGUAGES = {".sh": "bash", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source|video)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")

log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files of the repository that have a page, and those that pages link to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    linked = {
        path
        for file in files.documentation_pages()
        for path in _linked(file.content_string, _home(file.src_uri))
        if not path.startswith("docs/") and path not in PAGES and (ROOT / path).exists()
    }
    for path in linked.union(*map(_files_of, linked)):
        files.append(File.generated(config, _page_of(path), content=_shown(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to files of the repository become links to their pages."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown
    if here == "index.md":
        page.meta["hide"] = ["navigation", "toc"]

    def on_the_site(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(_home(here)), match[1]))
        there = path[len("docs/") :] if path.startswith("docs/") else _page_of(path)
        return posixpath.relpath(there, posixpath.dirname(here) or ".")

    return LINK.sub(on_the_site, markdown)


def on_page_content(page_html: str, **_: Any) -> str:
    """Formulas, which Arithmatex has marked, become MathML: browsers show it without a script."""
    page_html = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', _inline, page_html, flags=re.DOTALL)
    return re.sub(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', _block, page_html, flags=re.DOTALL)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Warn of what a reader's browser would fetch from another host."""
    for found in ELSEWHERE.findall(output):
        if 'rel="canonical"' not in found:
            log.warning("%s would load from another host: %s", page.file.src_uri, found)
    return output


def _home(page: str) -> str:
    """Where a page of the site is in the repository."""
    return next((name for name, there in PAGES.items() if there == page), f"docs/{page}")


def _linked(markdown: str, home: str) -> set[str]:
    """What a file of the repository links to, as paths there."""
    folder = posixpath.dirname(home)
    return {posixpath.normpath(posixpath.join(folder, match[1])) for match in LINK.finditer(markdown)}


def _page_of(path: str) -> str:
    return PAGES.get(path, f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md")


def _files_of(path: str) -> list[str]:
    """What is in a folder of the repository."""
    if not (ROOT / path).is_dir():
        return []
    return [f"{path}/{file.name}" for file in sorted((ROOT / path).iterdir()) if file.is_file()]


def _shown(path: str) -> str:
    """A file, or what a folder has, in Markdown."""
    if (ROOT / path).is_dir():
        return f"# {path}\n\n" + "\n".join(f"- [{Path(one).name}]({Path(one).name}.md)" for one in _files_of(path))
    language = LANGUAGES.get(Path(path).suffix, Path(path).suffix.lstrip("."))
    return f"# {path}\n\n````{language}\n{(ROOT / path).read_text()}\n````\n"


def _inline(match: re.Match[str]) -> str:
    return convert(html.unescape(match[1]))


def _block(match: re.Match[str]) -> str:
    return f'<div class="formula">{convert(html.unescape(match[1]), display="block")}</div>'
