"""Paragraphs out of HTML, DocBook, Mallard and roff: prose only, no code blocks, no menus."""

import html
import re

_TOKEN = re.compile(
    r"<!--.*?-->|<!\[CDATA\[(?P<raw>.*?)\]\]>|<[!?][^>]*>"
    r"|<(?P<close>/?)(?P<name>[A-Za-z][\w:.-]*)(?P<attributes>[^>]*?)(?P<self>/?)>|(?P<text>[^<]+)|<",
    re.S,
)
_CLASS = re.compile(r"""\bclass\s*=\s*["']([^"']*)""")
_PARAGRAPHS = frozenset(
    ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "th", "dt", "dd", "title", "para", "simpara")
)
_BLOCKS = _PARAGRAPHS | {"div", "item", "blockquote"}
_LISTINGS = frozenset(("pre", "screen", "programlisting", "script", "style", "svg", "media"))
_FURNITURE = frozenset(("header", "footer", "aside", "nav", "noscript", "head", "license", "legalnotice", "credit"))
_SKIPPED = _LISTINGS | _FURNITURE | {"info", "bookinfo", "articleinfo", "revhistory"}
# Platform variants of LibreOffice's help (the text says it twice) and Sphinx's pilcrow links.
_SKIPPED_CLASSES = frozenset(("MAC", "UNIX", "headerlink", "sphinxsidebar", "related"))
_VOID = frozenset(["br", "img", "meta", "link", "hr", "input", "area", "base", "col", "wbr"])
_SPACE = re.compile(r"\s+")
_UNKNOWN_ENTITY = re.compile(r"&[\w.-]+;")


def tidy(text: str) -> str:
    """One line, single spaces."""
    return _SPACE.sub(" ", text).strip()


class _Reader:
    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self._words: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self._hidden = 0

    def flush(self) -> None:
        text = tidy(_UNKNOWN_ENTITY.sub("", html.unescape("".join(self._words))))
        self._words.clear()
        if text:
            self.paragraphs.append(text)

    def text(self, text: str) -> None:
        if not self._hidden:
            self._words.append(text)

    def start(self, name: str, attributes: str, closed: bool) -> None:
        if name in _VOID:
            if name == "br":
                self._words.append(" ")
            return
        if name in _BLOCKS:
            self.flush()
        if closed:
            return
        found = _CLASS.search(attributes)
        hidden = name in _SKIPPED or bool(found and _SKIPPED_CLASSES.intersection(found[1].split()))
        # <code> inside a sentence belongs to it; standing alone it is a listing
        hidden = hidden or (name == "code" and not any(outer in _PARAGRAPHS for outer, _ in self._open))
        self._open.append((name, hidden))
        self._hidden += hidden

    def end(self, name: str) -> None:
        if name in _VOID or not any(outer == name for outer, _ in self._open):
            return
        if name in _BLOCKS:
            self.flush()
        while self._open:
            outer, hidden = self._open.pop()
            self._hidden -= hidden
            if outer == name:
                break


def paragraphs(markup: str) -> list[str]:
    """The paragraphs of an HTML or XML page."""
    body = markup.find('id="DisplayArea"')  # the text of a LibreOffice help page; around it are menus
    if body >= 0:
        markup = markup[markup.rfind("<", 0, body) : markup.find('<div id="SearchFrame"')]
    reader = _Reader()
    for token in _TOKEN.finditer(markup):
        name = token["name"]
        if token["text"] is not None:
            reader.text(token["text"])
        elif name is None:
            reader.text(html.escape(token["raw"] or ""))
        elif token["close"]:
            reader.end(name.lower())
        else:
            reader.start(name.lower(), token["attributes"], bool(token["self"]))
    reader.flush()
    return reader.paragraphs


_ROFF_FONT_LINE = re.compile(r"[.'](?:B|I|BR|IR|RB|RI|SM|SB|BI|IB)\s+(.*)")
_ROFF_FONT = re.compile(r"\\f(?:\[[^]]*\]|\(..|.)")
_ROFF_SPECIAL = re.compile(r"\\\((?P<two>..)|\\\[(?P<long>[^]]*)\]|\\(?P<one>.)")
_ROFF_NAMES = {
    "aq": "'",
    "dq": '"',
    "lq": "“",
    "rq": "”",
    "oq": "‘",
    "cq": "’",
    "em": "—",
    "en": "–",
    "bu": "•",
    "co": "©",
}
_ROFF_ONES = {"-": "-", "e": "\\", "\\": "\\", "~": " ", " ": " ", "0": " ", "'": "´", "`": "`"}


def roff_paragraphs(page: str) -> list[str]:
    """The prose of a man page; tables and requests are left out."""
    found: list[str] = []
    words: list[str] = []
    listing = False
    for line in page.split("\n"):
        if line.startswith(('.\\"', "'\\\"")):
            continue
        if line[:1] in (".", "'"):
            font = _ROFF_FONT_LINE.match(line)
            if font and not listing:
                words.append(font[1].replace('"', ""))
                continue
            listing = line.startswith((".nf", ".EX", ".TS")) or (listing and not line.startswith((".fi", ".EE", ".TE")))
        elif line.strip() and not listing:
            words.append(line)
            continue
        if words:
            found.append(tidy(_plain_roff(" ".join(words))))
            words.clear()
    if words:
        found.append(tidy(_plain_roff(" ".join(words))))
    return found


def _plain_roff(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        name = match["two"] or match["long"]
        return _ROFF_NAMES.get(name, "") if name is not None else _ROFF_ONES.get(match["one"], "")

    return _ROFF_SPECIAL.sub(one, _ROFF_FONT.sub("", text))
