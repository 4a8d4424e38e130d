"""`when`: is a step on? A small language of comparisons with a reader of its own; nothing is ever evaluated as code.

when: ${control}
when: ${lang} in [hu, fi] and not ${quick}
when: (${strategy} == lora or ${rate} != 1e-4) and ${lang} not in [en]
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langadapt.core.config import nearest
from langadapt.core.errors import ConfigError
from langadapt.core.yaml import resolve_scalar
from langadapt.recipe.axes import as_text
from langadapt.recipe.values import Unset, Variables

MAX_LETTERS = 2000
# Each parenthesis and each `not` costs a few frames of Python's stack.
MAX_DEPTH = 20
_PARTS = re.compile(
    r"""\s*(?:(?P<variable>\$\{[^}]*\})|(?P<quoted>'[^']*'|"[^"]*")|(?P<sign>==|!=|[()\[\],])"""
    r"""|(?P<word>[^\s()\[\],'"=!${}]+))"""
)
_HINT = 'e.g. when: "${lang} in [hu, fi] and not ${quick}"; text that is not a plain word stands in quotes'


@dataclass(frozen=True)
class _Part:
    kind: str
    text: str


def switched_on(when: Any, variables: Variables, where: str | None) -> bool:
    """Is a step on? True, false, or a condition; a value alone is on unless it is null, false, 0 or empty.

    ConfigError for what is no condition, and for a variable that the recipe does not have.
    """
    if isinstance(when, bool):
        return when
    if not isinstance(when, str):
        raise ConfigError(f"`when` should be true, false or a condition (got `{when}`)", where=where, hint=_HINT)
    return _Reader(when, variables, where).whole()


class _Reader:
    """Reads a condition from left to right; both sides of `and` and `or` are read, so that every name is checked."""

    def __init__(self, text: str, variables: Variables, where: str | None) -> None:
        self.text, self.variables, self.where = text, variables, where
        self.parts = self._split()
        self.at = 0
        self.depth = 0

    def _split(self) -> list[_Part]:
        if len(self.text) > MAX_LETTERS:
            raise ConfigError(f"`when` is longer than {MAX_LETTERS} letters", where=self.where)
        parts, at, text = [], 0, self.text.rstrip()
        while at < len(text):
            match = _PARTS.match(text, at)
            if match is None:
                raise self._wrong(text[at:].strip()[:20])
            parts.append(_Part(str(match.lastgroup), match[str(match.lastgroup)]))
            at = match.end()
        return parts

    def _wrong(self, what: str) -> ConfigError:
        at = f"at `{what}`" if what else "at its end"
        return ConfigError(f"`when: {self.text}` cannot be read {at}", where=self.where, hint=_HINT)

    def _next(self) -> _Part:
        return self.parts[self.at] if self.at < len(self.parts) else _Part("end", "")

    def _take(self, *texts: str) -> bool:
        """Move past the next part if it is one of these words or signs."""
        part = self._next()
        if part.kind in ("word", "sign") and part.text in texts:
            self.at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(self._next().text)

    def whole(self) -> bool:
        value = self._either()
        if self.at < len(self.parts):
            raise self._wrong(self._next().text)
        return value

    def _either(self) -> bool:
        value = self._both()
        while self._take("or"):
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._deeper(self._negated)
        while self._take("and"):
            value = self._deeper(self._negated) and value
        return value

    def _deeper(self, read: Callable[[], bool]) -> bool:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"`when` is nested deeper than {MAX_DEPTH} levels", where=self.where)
        value = read()
        self.depth -= 1
        return value

    def _negated(self) -> bool:
        if self._take("not"):
            return not self._deeper(self._negated)
        if self._take("("):
            value = self._either()
            self._need(")")
            return value
        return self._comparison()

    def _comparison(self) -> bool:
        """One comparison; without a variable it would always say the same, which nobody means (`lang == hu`)."""
        begin, value = self.at, self._compared()
        read = self.parts[begin : self.at]
        if not any(part.kind == "variable" for part in read) and read[0].text not in ("true", "false"):
            near = nearest(read[0].text, list(self.variables.values))
            raise ConfigError(
                f"`when` should be true, false or a condition on variables: `{read[0].text}` is a plain word",
                where=self.where,
                hint=f"did you mean `${{{near}}}`?" if near else _HINT,
            )
        return value

    def _compared(self) -> bool:
        left = self._operand()
        if self._take("=="):
            return same(left, self._operand())
        if self._take("!="):
            return not same(left, self._operand())
        if self._take("in"):
            return self._among(left)
        if self._take("not"):
            self._need("in")
            return not self._among(left)
        return bool(left) and left != "false"

    def _among(self, left: Any) -> bool:
        right = self._operand()
        if not isinstance(right, list):
            raise ConfigError(f"`when: {self.text}`: `in` needs a list", where=self.where, hint=_HINT)
        return any(same(left, item) for item in right)

    def _operand(self) -> Any:
        part = self._next()
        self.at += 1
        if part.kind == "variable":
            value = self.variables.fill(part.text, self.where)
            return None if isinstance(value, Unset) else value
        if part.kind == "quoted":
            return part.text[1:-1]
        if part.kind == "word":  # `or` is a language too: where a value must stand, no word is special
            return resolve_scalar(part.text, self.where or "")
        if part.text == "[" and part.kind == "sign":
            return self._list()
        raise self._wrong(part.text)

    def _list(self) -> list[Any]:
        items: list[Any] = []
        while not self._take("]"):
            if items:
                self._need(",")
            if self._next().text == "[" and self._next().kind == "sign":
                raise self._wrong("[")
            items.append(self._operand())
        return items


def same(left: Any, right: Any) -> bool:
    """Equality as a person means it: 1 is 1.0, `true` is not 1, null is only null, and text is compared as text."""
    if left is None or right is None or isinstance(left, list | dict) or isinstance(right, list | dict):
        return type(left) is type(right) and bool(left == right)
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in (left, right))
    return bool(left == right) if numbers else as_text(left) == as_text(right)
