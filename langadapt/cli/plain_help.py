"""Help without boxes: for narrow terminals, where columns would be cut, and for those that show ASCII only."""

import inspect
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

if TYPE_CHECKING:
    import typer

_INDENT = 2
_HELP = ("--help, -h", "Show this message and exit.")


def lines(app: "typer.Typer", name: str | None, width: int) -> list[str]:
    """The whole help of a command, or of the program (None), in lines of at most `width` letters."""
    found = list(_program(app, width)) if name is None else list(_command(app, name, width))
    return [line.rstrip() for line in found]


def _program(app: "typer.Typer", width: int) -> Iterator[str]:
    yield from _wrap("Usage: langadapt [OPTIONS] COMMAND [ARGS]...", width)
    yield ""
    yield from _paragraphs(app.info.help, width)
    yield "Options:"
    yield from _entry(*_HELP, width)
    yield ""
    panels: dict[str, list[Any]] = {}
    for info in app.registered_commands:
        panels.setdefault(str(info.rich_help_panel), []).append(info)
    for panel, infos in panels.items():
        yield f"{panel}:"
        for info in infos:
            yield from _entry(str(info.name), str(info.help or "").split("\n\n")[0], width)
        yield ""
    yield from _paragraphs(app.info.epilog, width)


def _command(app: "typer.Typer", name: str, width: int) -> Iterator[str]:
    info = next(item for item in app.registered_commands if item.name == name)
    callback: Any = info.callback
    words = [(key, item.annotation) for key, item in inspect.signature(callback).parameters.items()]
    arguments = [(_label(key, found), found) for key, kind in words if (found := _info(kind)) and not _is_option(found)]
    usage = " ".join(["Usage: langadapt", name, "[OPTIONS]", *(label for label, _ in arguments)])
    yield from _wrap(usage, width)
    yield ""
    yield from _paragraphs(str(info.help or ""), width)
    panels: dict[str, list[tuple[str, str]]] = {}
    for key, kind in words:
        found = _info(kind)
        if found is not None:
            panel = getattr(found, "rich_help_panel", None) or ("Options" if _is_option(found) else "Arguments")
            panels.setdefault(panel, []).append((_label(key, found), found.help or ""))
    panels.setdefault("Output", []).append(_HELP)
    for panel, entries in panels.items():
        yield f"{panel}:"
        for label, text in entries:
            yield from _entry(label, text, width)
        yield ""
    yield from _paragraphs(info.epilog, width)


def _info(annotation: Any) -> Any:
    return get_args(annotation)[1] if get_origin(annotation) is Annotated else None


def _is_option(info: Any) -> bool:
    return type(info).__name__ == "OptionInfo"


def _label(name: str, info: Any) -> str:
    if not _is_option(info):
        return str(info.metavar or name.upper())
    declared = [info.default] if isinstance(info.default, str) else []
    names = [*declared, *(info.param_decls or ())] or [f"--{name.replace('_', '-')}"]
    return f"{', '.join(map(str, names))} {info.metavar or ''}".rstrip()


def _entry(label: str, text: str, width: int) -> Iterator[str]:
    yield from _wrap(label, width, _INDENT)
    yield from _wrap(text, width, 3 * _INDENT)


def _paragraphs(text: Any, width: int) -> Iterator[str]:
    for paragraph in str(text or "").strip().split("\n\n"):
        if paragraph.strip():
            yield from _wrap(paragraph, width)
            yield ""


def _wrap(text: str, width: int, indent: int = 0) -> list[str]:
    # texts are declared with their brackets escaped for rich
    plain = " ".join(text.replace("\\[", "[").split())
    indent = indent if width > 3 * indent else 0
    return textwrap.wrap(
        plain, max(width, 1), initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False
    )
