"""Reports as one HTML page that needs nothing else: our Markdown with its figures inside, and how its numbers were made.

No JavaScript and no request: the page forbids both by its own content policy, so it can be mailed, printed and opened years later.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
import os
from pathlib import Path
import re
import shlex
import sys
from typing import Any
from urllib.parse import quote, unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin
from PIL import Image, UnidentifiedImageError

from amalgam_tf.errors import UserError
from amalgam_tf.report import page_tables, provenance, text
from amalgam_tf.report.runs import FinishedRun

NAME = "report.html"
LONG = 4  # headings from which on a page has a table of contents
WIDE = 560  # width in CSS pixels from which on the letters of a figure would be dots on a narrow screen: it scrolls there instead
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="amalgam_tf">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{contents}</header>
<main>
{main}</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Entry:
    """One line of an index.

    Attributes:
        name: of the artefact, e.g. `afk_table1`.
        state: in words, e.g. `done`, `3 of 12 runs`, `not started`.
        said: its result, or what it waits for, in one line of Markdown.
        page: its page; None if there is none yet.
    """

    name: str
    state: str
    said: str = ""
    page: str | Path | None = None


def write(
    markdown_files: Sequence[str | Path], output: str | Path, *, title: str, runs: Sequence[FinishedRun] = (), command: str = ""
) -> Path:
    """Writes reports as one self-contained page; returns its path.

    Args:
        markdown_files: in the order of the page. Figures are looked for beside each file and put into the page; one that is not there is
            named in its place.
        output: the page's path; its folder is made if it is missing.
        title: of the page. A single report that begins with the same heading is not given it twice.
        runs: whose commands, commits, versions, hardware and times stand in the appendix (`runs.read` finds them).
        command: that wrote the page; "": the command line of this process.

    Raises:
        UserError: a file that cannot be read, a figure that is damaged or lies on the network, or a page that cannot be written.
    """
    files = [Path(f) for f in markdown_files]
    documents = [(_read(f), f) for f in files]
    if len(files) == 1:
        documents = [(documents[0][0].removeprefix(f"# {title}\n"), files[0])]
    appendix = "\n".join(provenance.lines(runs, command or _command()))
    return _write_page([*documents, (appendix, None)], Path(output), title)


def index(entries: Sequence[Entry], output: str | Path, *, title: str = "Reports", said: str = "", command: str = "") -> Path:
    """Writes a page of links: every artefact with its state and its result; returns its path.

    Args:
        entries: in order.
        output: the page's path. Links are relative to its folder, so that the folder can be moved.
        title: of the page.
        said: Markdown to stand above the table.
        command: as in `write`.

    Raises:
        UserError: as `write`.
    """
    output = Path(output)
    rows = [[_linked(e, output.parent), e.state, e.said.replace("|", "\\|") or text.NOTHING] for e in entries]
    lines = [said, "", *text.table(["artefact", "state", "result"], rows), ""]
    lines += provenance.lines((), command or _command())
    return _write_page([("\n".join(lines), None)], output, title)


def _command() -> str:
    """The command line of this process; of a module its name, which works from everywhere."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    first = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join([*first, *sys.argv[1:]])


def _linked(entry: Entry, folder: Path) -> str:
    if entry.page is None:
        return f"`{entry.name}`"
    return f"[{entry.name}]({quote(Path(os.path.relpath(entry.page, folder)).as_posix())})"


# -- files ------------------------------------------------------------------------------------------------------------
def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"the report {file} cannot be read ({why}): write it again with amalgam-compare or amalgam-train") from error


def _write_page(documents: Sequence[tuple[str, Path | None]], output: Path, title: str) -> Path:
    page = _Page()
    main = "".join(page.add(markdown, file) for markdown, file in documents)
    if page.marked:
        main = f'<p class="legend">{escape(page_tables.LEGEND)}</p>\n{main}'
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    html = _PAGE.format(policy=escape(POLICY), title=escape(title), style=style, contents=page.contents(), main=main)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the page {output} cannot be written ({error.strerror}): choose another folder") from error
    return output


def _embedded(file: Path) -> tuple[str, int, int]:
    """A figure as a data URI, its width and its height in CSS pixels: its own inches, at 96 to an inch."""
    try:
        with Image.open(file) as image:
            image.verify()
            scale = 96 / max([96, *image.info.get("dpi", ())])
            width, height = (round(scale * side) for side in image.size)
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        return f"data:{_TYPES[file.suffix.lower()]};base64,{data}", width, height
    except KeyError as error:
        raise UserError(f"the figure {file} is of no type that a page can hold: use {', '.join(_TYPES)}") from error
    except (OSError, SyntaxError, UnidentifiedImageError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise UserError(f"the figure {file} is damaged ({error}): write the report again") from error


# -- Markdown to HTML -------------------------------------------------------------------------------------------------
class _Page:
    """Collects what the documents of one page share: names of headings, contents, whether any difference is marked."""

    def __init__(self):
        self.headings: list[tuple[int, str, str]] = []  # level, name in links, text
        self.marked = False
        self._names, self._documents = {""}, 0
        self._markdown = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table").use(footnote_plugin)
        rules = {
            "table_open": _table_open,
            "table_close": _table_close,
            "image": _image,
            "footnote_caption": _caption,
            "footnote_anchor": _back,
        }
        for name, rule in rules.items():
            self._markdown.add_render_rule(name, rule)

    def add(self, markdown: str, file: Path | None) -> str:
        """One document as HTML. If it has a title its headings go one level down, below the page's own."""
        self._documents += 1
        env: dict[str, Any] = {"docId": str(self._documents)}  # footnotes of several documents must not share a name
        tokens = self._markdown.parse(markdown, env)
        down = int(any(t.tag == "h1" for t in tokens))
        for opened, inline, closed in zip(tokens, tokens[1:], tokens[2:], strict=False):
            if opened.type == "heading_open":
                self._heading(opened, inline, closed, down)
            elif opened.type == "paragraph_open" and [c.type for c in inline.children] == ["image"]:
                opened.tag = closed.tag = "figure"
                image = inline.children[0]
                image.meta["figure"] = True
                _load(image, file)
                if image.meta.get("width", 0) > WIDE:
                    opened.attrSet("class", "wide")
            elif inline.type == "inline":
                for image in [c for c in inline.children if c.type == "image"]:
                    _load(image, file)
        self.marked = page_tables.arrange(tokens) or self.marked
        return self._markdown.renderer.render(tokens, self._markdown.options, env)

    def _heading(self, opened: Token, inline: Token, closed: Token, down: int) -> None:
        level = min(int(opened.tag[1]) + down, 6)
        opened.tag = closed.tag = f"h{level}"
        said = page_tables.plain(inline)
        base = re.sub(r"\W+", "-", said.lower()).strip("-")
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(self._names) + 3))) if n not in self._names)
        self._names.add(name)
        opened.attrSet("id", name)
        self.headings.append((level, name, said))

    def contents(self) -> str:
        """The two upper levels of headings as links; nothing for a short page."""
        top = min((level for level, _, _ in self.headings), default=0)
        listed = [h for h in self.headings if h[0] <= top + 1]
        if len(listed) < LONG:
            return ""
        links = (f'<li class="depth{level - top}"><a href="#{escape(name)}">{escape(said)}</a></li>\n' for level, name, said in listed)
        return f'<nav aria-label="Contents">\n<ul>\n{"".join(links)}</ul>\n</nav>\n'


def _load(image: Token, file: Path | None) -> None:
    source = unquote(str(image.attrs["src"]))
    if re.match(r"\w+:|//", source):
        raise UserError(f"{file} shows {source}, but a page holds its figures itself: copy the figure beside the report")
    place = (file.parent if file else Path()) / source
    if place.is_file():
        image.meta["data"], image.meta["width"], image.meta["height"] = _embedded(place)
    else:
        image.meta["gone"] = source


# Renderers of single tokens, called by markdown-it as methods of its renderer.
def _image(_renderer, tokens: Sequence[Token], i: int, _options, _env) -> str:
    meta, alt = tokens[i].meta, tokens[i].content
    if gone := meta.get("gone"):
        tag = "p" if meta.get("figure") else "span"
        return f'<{tag} class="missing">The figure {escape(gone)} ({escape(alt)}) is not beside the report.</{tag}>'
    image = f'<img src="{meta["data"]}" width="{meta["width"]}" height="{meta["height"]}" alt="{escape(alt)}">'
    return f"<div>{image}</div>\n<figcaption>{escape(alt)}</figcaption>" if meta.get("figure") else image


def _table_open(_renderer, tokens: Sequence[Token], i: int, _options, _env) -> str:
    """In a box of its own, which scrolls when the table is wider than the screen; it can be reached by keyboard."""
    many = " many" * (tokens[i].meta["columns"] >= page_tables.MANY)
    return f'<div class="table{many}" role="region" aria-label="table" tabindex="0">\n<table>\n'


def _table_close(_renderer, _tokens: Sequence[Token], _i: int, _options, _env) -> str:
    return "</table>\n</div>\n"


def _back(_renderer, tokens: Sequence[Token], i: int, _options, env) -> str:
    """One way back, to where the footnote is first referred to."""
    meta = tokens[i].meta
    if meta["subId"]:
        return ""
    return f' <a href="#fnref-{env["docId"]}-{meta["id"] + 1}" class="footnote-backref" aria-label="Back to the number">\u21a9\ufe0e</a>'


def _caption(_renderer, tokens: Sequence[Token], i: int, _options, _env) -> str:
    """The same number wherever a footnote is referred to; the plugin's own would count the references."""
    return str(tokens[i].meta["id"] + 1)
