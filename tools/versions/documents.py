"""Documents of headings, texts, tables and pictures, written as Markdown and as HTML from one description."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from watchkeeper.tools.text import visible

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~])|^([-+=>])|^(\d+)([.)])(?=\s|$)")
_LONGEST = 4000
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.2rem .6rem;text-align:left}"
    "img{max-width:100%}"
)
_POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: names of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture beside the document, with a few words on it."""

    path: str
    caption: str


Block = Paragraph | Bullets | Grid | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class PlainDocument:
    """A document; every text in it may have been written by others and is shown as text only."""

    title: str
    sections: tuple[Section, ...]


def as_markdown(document: PlainDocument) -> str:
    """Write a document as Markdown."""
    return "\n".join(_markdown(document)).strip() + "\n"


def as_html(document: PlainDocument) -> str:
    """Write a document as one HTML page without scripts."""
    return "\n".join(_html(document)) + "\n"


def _markdown(document: PlainDocument) -> Iterator[str]:
    yield f"# {_md(document.title)}"
    for section in document.sections:
        yield f"\n## {_md(section.heading)}"
        for block in section.blocks:
            yield ""
            match block:
                case Paragraph(text):
                    yield _md(text)
                case Bullets(items):
                    yield from (f"- {_md(item)}" for item in items)
                case Grid(columns, rows):
                    yield _row(columns)
                    yield _row(("---",) * len(columns), escape=False)
                    yield from (_row(row) for row in rows)
                case Picture(path, caption):
                    yield f"![{_md(caption)}]({quote(path)})"


def _html(document: PlainDocument) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">'
    yield f"<title>{_text(document.title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{_text(document.title)}</h1>"
    for section in document.sections:
        yield f"<h2>{_text(section.heading)}</h2>"
        for block in section.blocks:
            match block:
                case Paragraph(text):
                    yield f"<p>{_text(text)}</p>"
                case Bullets(items):
                    yield "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"
                case Grid(columns, rows):
                    yield "<table><tr>" + "".join(f"<th>{_text(one)}</th>" for one in columns) + "</tr>"
                    for row in rows:
                        yield "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
                    yield "</table>"
                case Picture(path, caption):
                    yield (
                        f'<figure><img src="{html.escape(quote(path))}" alt="{_text(caption)}">'
                        f"<figcaption>{_text(caption)}</figcaption></figure>"
                    )
    yield "</body></html>"


def _row(cells: tuple[str, ...], *, escape: bool = True) -> str:
    return "| " + " | ".join(_md(cell) if escape else cell for cell in cells) + " |"


def _md(text: str) -> str:
    # What stands first could make a list, a quotation or a heading of it.
    escaped = _MARKDOWN.sub(lambda m: f"{m[3] or ''}\\{m[1] or m[2] or m[4]}", _line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _text(text: str) -> str:
    return html.escape(_line(text))


def _line(text: str) -> str:
    return visible(" ".join(text.split()), _LONGEST)
