"""Which methods are compared: those that were named, or all, as far as what they need was given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.core.config import Options
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Inputs
from langadapt.core.registry import Method, load_method, method_names
from langadapt.core.validate import validate
from langadapt.steps._init_config import helper_is_learned


@dataclass(frozen=True)
class Candidate:
    """A method that can run; `needs` names the inputs that it looks at beside the model and the tokenizer."""

    method: Method
    options: Any
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its public name."""
        return self.method.name


@dataclass(frozen=True)
class LeftOut:
    """A method that is not compared, why, and what would change that."""

    name: str
    why: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        """One line for people."""
        return f"`{self.name}` is left out: {self.why}" + (f"; {self.hint}" if self.hint else "")


def wanted_methods(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Method, Options]]:
    """The methods that are named, all if none is, each with its options.

    ConfigError: an unknown method, an option that it does not have, or options of one that is not compared.
    """
    wanted = list(dict.fromkeys(names)) or method_names("embed")
    stray = [name for name in options if name not in wanted]
    if stray:
        raise ConfigError(
            f"`method_options` has options of `{stray[0]}`, which is not compared", where="method_options"
        )
    methods = {name: load_method("embed", name) for name in wanted}
    return {name: (method, validate(method.options, options.get(name, {}), what=f"options of `{name}`"))
            for name, method in methods.items()}  # fmt: skip


def candidates(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]], given: Inputs
) -> tuple[list[Candidate], list[LeftOut]]:
    """Methods in the order given (all of them by name if none is), and those whose needs are not met.

    ConfigError: as of `wanted_methods`, or no method left.
    """
    from langadapt.embed.inputs import check_needs

    found, left = [], []
    for name, (method, own) in wanted_methods(names, options).items():
        try:
            check_needs(name, method.facts.needs, given)
        except ConfigError as error:
            left.append(LeftOut(name, error.message.partition(f"the method `{name}` ")[2], error.hint or ""))
            continue
        found.append(Candidate(method, own, looks_at(method, given)))
    if not found:
        raise ConfigError("no method is left to compare", hint=left[0].sentence if left else None)
    return found, left


def looks_at(method: Method, given: Inputs) -> tuple[str, ...]:
    """The inputs that a method will open, of those that were given."""
    found: list[str] = []
    for need in method.facts.needs:
        ways = need.rstrip("?").split("|")
        found += [way for way in ways if given.get(way) is not None][:1]
    if "helper" in found and helper_is_learned(given):
        found.append("corpus")
    return tuple(dict.fromkeys(found))
