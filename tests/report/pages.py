"""Reading a page as strictly as no browser does: everything closed in order, nothing from outside, no script."""

from html.parser import HTMLParser
import re

VOID = {"meta", "link", "img", "br", "hr"}
BLOCKS = {"p", "div", "table", "figure", "ul", "ol", "pre", "section", "nav", "h1", "h2", "h3", "h4", "h5", "h6"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        tags: names of all elements in order.
        faults: sentences; empty for a good page.
        cells: rows of every table: [(tag, classes, text)].
        links: (href, text) of every anchor.
        images: attributes of every img.
    """

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.faults, self.tables, self.links, self.images = [], [], [], [], []
        self._open, self._ids, self._text, self._style = [], [], [], ""
        self.said = ""
        self.feed(html)
        self.close()
        self.faults += [f"<{t}> is never closed" for t in self._open]
        self.faults += [f"the name {i} twice" for i in set(self._ids) if self._ids.count(i) > 1]
        self.faults += [f"{href} leads nowhere" for href, _ in self.links if href.startswith("#") and href[1:] not in self._ids]
        if re.search(r"@import|@font-face|url\(", self._style):
            self.faults.append("the style asks for a file")

    def handle_decl(self, decl):
        self.tags.append(decl.lower())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag in ("script", "iframe", "object", "embed", "base", "form", "video", "audio"):
            self.faults.append(f"<{tag}>")
        if "p" in self._open and tag in BLOCKS:
            self.faults.append(f"<{tag}> inside <p>")
        for name, value in attrs.items():
            if name.startswith("on"):
                self.faults.append(f"{name} is a script")
            if name in ("src", "srcset", "poster", "data", "action") and not value.startswith("data:image/"):
                self.faults.append(f"{name}={value[:60]} is not inside the page")
        if tag == "link" and not attrs["href"].startswith("data:"):
            self.faults.append(f"<link> to {attrs['href']}")
        if "id" in attrs:
            self._ids.append(attrs["id"])
        if tag == "img":
            self.images.append(attrs)
            if not attrs.get("alt"):
                self.faults.append("an image without words")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td", "a"):
            self._text.append([tag, attrs, ""])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")
        if tag in ("th", "td", "a") and self._text:
            _, attrs, text = self._text.pop()
            if tag == "a":
                self.links.append((attrs["href"], text))
            else:
                self.tables[-1][-1].append((tag, (attrs.get("class") or "").split(), text.strip()))

    def handle_data(self, data):
        for piece in self._text:
            piece[2] += data
        if self._open and self._open[-1] == "style":
            self._style += data
        else:
            self.said += data

    def column(self, head: str, table: int = 0) -> list[tuple[str, list[str], str]]:
        """The cells below a head."""
        rows = self.tables[table]
        at = [c[2] for c in rows[0]].index(head)
        return [row[at] for row in rows[1:]]
