"""Typer without its column of Python types: `<bool>` and `<list[str]>` tell nobody what to write."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup


def _no_types(params: list[Any]) -> list[Any]:
    """The same parameters; arguments have their name already, options their metavar, and `--help` takes nothing."""
    for param in params:
        if isinstance(param, TyperArgument):
            param.__dict__["display_type_rich"] = _nothing
        elif param.metavar is None:
            param.metavar = ""
    return params


def _nothing(ctx: Any) -> None:
    """The type of a parameter that shows none."""


class Command(TyperCommand):
    """A command whose help shows no types."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Those of Typer, without their types."""
        return _no_types(super().get_params(ctx))


class Group(TyperGroup):
    """The program itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Those of Typer, without their types."""
        return _no_types(super().get_params(ctx))


class App(typer.Typer):
    """A Typer app made of such commands."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[Any], Any]:
        """Register a command."""
        return super().command(name, **{"cls": Command, **more})
