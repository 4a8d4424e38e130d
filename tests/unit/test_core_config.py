"""Where settings come from: precedence, origins, the types of `-o`, and a config that prints as it reads."""

from contextlib import suppress
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from langadapt.core.config import (
    CorpusInput,
    Flag,
    ModelInput,
    Options,
    Reads,
    Runtime,
    StepConfig,
    input_fields,
    runtime_fields,
)
from langadapt.core.errors import ConfigError
from langadapt.core.languages import Lang, normalise
from langadapt.core.sources import Settings, build, fit_text, merge, parse_assignment, print_config, show_value
from langadapt.core.units import Bytes, Count
from langadapt.core.validate import validate
from langadapt.core.verb import load
from langadapt.core.yaml import load_bytes
from langadapt.steps import init_embeddings


class Inner(Options):
    """A part of the config."""

    depth: int = 1
    """How deep."""
    name: str = "x"
    """What it is called."""


class Config(StepConfig):
    """A config with one field of every kind."""

    model: ModelInput
    """The model."""
    corpora: dict[str, CorpusInput]
    """The corpora."""
    control: ModelInput | None = None
    """Another model."""
    guard: Annotated[tuple[CorpusInput, ...], Flag()] = ()
    """Protected text."""
    lid: Annotated[str, Reads((), plain=True, flag_only=True)] | None = None
    """A file."""
    size: Annotated[Count, Flag("-n")] = 4000
    """New tokens."""
    lang: Annotated[Lang | None, Flag()] = None
    """The language."""
    text_field: str = "text"
    """A name."""
    share: dict[str, float] = Field(default_factory=dict)
    """Shares."""
    names: tuple[str, ...] = ()
    """Names."""
    rate: float | None = None
    """A rate."""
    max_bytes: dict[str, Bytes] | Bytes | None = None
    """A cap."""
    mode: Literal["auto", "no", "yes"] = "auto"
    """A choice."""
    tied: bool = False
    """A switch."""
    inner: Inner = Inner()
    """A part."""
    threads: Annotated[int | None, Runtime()] = None
    """Runtime only."""


NEEDED: dict[str, tuple[Any, str]] = {"model": ("m", "MODEL"), "corpora": ({"hu": "c"}, "NAME=CORPUS...")}


def made(*assignments: str, yaml: str = "", **flags: Any) -> Config:
    given = NEEDED | {name: (value, f"--{name}") for name, value in flags.items()}
    return build(Config, merge(Config, file=load_bytes(yaml.encode(), "f.yaml"), assignments=assignments, flags=given))


def test_precedence_flag_assignment_file_default() -> None:
    assert made().size == 4000
    assert made(yaml="size: 5k").size == 5000
    assert made("size=6k", yaml="size: 5k").size == 6000
    assert made("size=6k", yaml="size: 5k", size="7k").size == 7000


def test_origin_of_every_value() -> None:
    file = load_bytes(b"rate: 0.5\nshare:\n  en: 0.2\n  fi: 0.1\ninner: {depth: 2}\n", "r.yaml")
    found = merge(
        Config, file=file, assignments=["share.en=0.3", "tied=true"], flags=NEEDED | {"size": ("8k", "--size")}
    )
    assert [found.origin(key) for key in ("rate", "share.fi", "share.en", "tied", "size", "mode", "inner.name")] == [
        "r.yaml:1", "r.yaml:4", "-o share.en=0.3", "-o tied=true", "--size", "default", "r.yaml:5",
    ]  # fmt: skip
    assert file.values["share"] == {"en": 0.2, "fi": 0.1}, "the file's own values were changed"


ASSIGNMENTS: list[tuple[str, object]] = [
    ("lang=no", "no"), ("lang=nan", "nan"), ("lang=zh-Hant", "zh-Hant"), ("lang=hun_Latn", "hu"), ("lang=null", None),
    ("text_field=123", "123"), ("text_field=no", "no"), ("text_field=a=b", "a=b"), ("text_field=", ""),
    ("text_field=2020-01-01", "2020-01-01"), ("text_field=null", "null"), ("text_field=[a", "[a"), ("mode=no", "no"),
    ("size=4Ki", 4096), ("size=10", 10), ("text-field=x", "x"), ("rate=1e-5", 1e-5), ("rate=3", 3.0),
    ("rate=null", None),
    ("names=[no, 1, nan]", ("no", "1", "nan")), ("names=abc", ("abc",)), ("names=[]", ()), ("tied=true", True),
    ("share={hu: 0.8, no: 0.2}", {"hu": 0.8, "no": 0.2}), ("share.no=0.5", {"no": 0.5}), ("max_bytes=2MB", 2_000_000),
    ("max_bytes={no: 1kB}", {"no": 1000}), ("inner.depth=3", Inner(depth=3)), ("inner.name=5", Inner(name="5")),
    ("guard=[a, b]", ("a", "b")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), ASSIGNMENTS)
def test_assignments_take_the_type_of_the_field(text: str, value: object) -> None:
    got = getattr(made(text), text.partition("=")[0].split(".")[0].replace("-", "_"))
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size", "not of the form key=value"),
        ("=3", "not of the form"),
        ("a..b=3", "not of the form"),
        ("sise=3", "unknown key `sise`"),
        ("inner.dept=3", "unknown key `inner.dept`"),
        ("size=many", "is not a count"),
        ("size=1.5", "integer"),
        ("tied=yes", "boolean"),
        ("rate=.nan", "finite"),
        ("rate=[1", "not valid YAML"),
        ("rate=2020-01-01", "date"),
        ("lang=klingonish", "not a language code"),
        ("size.x=3", "size"),
    ],
)
def test_assignments_that_cannot_be_used(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        made(text)
    assert text in str(caught.value), "the error names what was typed"


def test_below_a_value_there_are_no_keys() -> None:
    with pytest.raises(ConfigError, match="holds a value, not keys"):
        made("size.x=3", yaml="size: 3")


def test_unknown_key_names_file_line_and_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        made(yaml="rate: 1.0\nsise: 3\n")
    assert caught.value.where == "f.yaml:2"
    assert "did you mean `size`" in str(caught.value.hint)


def test_all_problems_at_once_each_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        made("tied=1", yaml="sise: 3\nrate: fast\n")
    text = str(caught.value)
    assert all(part in text for part in ("f.yaml:1", "f.yaml:2", "-o tied=1"))


def test_strings_in_files_are_not_guessed() -> None:
    with pytest.raises(ConfigError, match="valid string"):
        made(yaml="text_field: 123")
    assert made(yaml="text_field: no").text_field == "no"


def test_printed_config_reads_back_as_itself() -> None:
    wanted = made(
        "lang=no", "names=[no, '1', 'a b', 'null', '', 'é: #x', '2020-01-01', '1e5']", "share={en: 0.1, no: 1e-7}",
        "max_bytes={nan: 1kB}", "text_field=true", "inner.name=~", "rate=1e-05", tied=True,
    )  # fmt: skip
    given = Settings(wanted.model_dump(mode="json"))
    text = print_config(Config, given)
    assert build(Config, Settings(load_bytes(text.encode(), "p").values)) == wanted


def test_printed_config_shows_origins_and_missing_inputs() -> None:
    file = load_bytes(b"\nrate: 0.5\n", "recipe.yaml")
    text = print_config(Config, merge(Config, file=file, flags={"size": ("8k", "--size")}))
    lines = {line.partition("  #")[0].strip(): line.partition("  # ")[2] for line in text.splitlines()}
    assert lines["size: 8000"] == "from --size"
    assert lines["rate: 0.5"] == "from recipe.yaml:2"
    assert lines["tied: false"] == "default"
    assert lines["# model:"] == "required"
    assert "model" not in load_bytes(text.encode(), "p").values


def test_origins_cannot_add_lines_to_a_printed_config() -> None:
    text = print_config(Config, merge(Config, assignments=["text_field=a\nseed: 7"]))
    assert load_bytes(text.encode(), "p").values["seed"] == 0


@settings(max_examples=300)
@given(st.text(max_size=20))
def test_any_text_is_shown_as_it_is_read(text: str) -> None:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        return
    assert load_bytes(f"a: {show_value(text)}\n".encode(), "f").values == {"a": text}


@settings(max_examples=300)
@given(st.text(max_size=30))
def test_only_config_errors_come_out_of_assignments(text: str) -> None:
    for key in ("size", "names", "share", "lang", "max_bytes", "inner"):
        try:
            made(f"{key}={text}")
        except ConfigError:
            continue


def test_markers() -> None:
    fields = {item.name: item for item in input_fields(Config)}
    assert list(fields) == ["model", "corpora", "control", "guard", "lid"]
    assert [fields[name].shape for name in fields] == ["one", "map", "one", "many", "one"]
    assert [name for name, item in fields.items() if item.required] == ["model", "corpora"]
    assert runtime_fields(Config) == {"threads"}


def test_strictness_and_freezing() -> None:
    with pytest.raises(ConfigError, match="integer"):
        validate(Inner, {"depth": True})
    with pytest.raises(ConfigError, match="integer"):
        validate(Inner, {"depth": 1.0})
    with pytest.raises(ConfigError, match="values that JSON cannot hold"):
        validate(Inner, {"depth": object()})
    with pytest.raises(ValueError, match="frozen"):
        Inner().depth = 2  # type: ignore[misc]


def test_fit_text_without_a_type_reads_yaml() -> None:
    assert fit_text("[1, no]", Any, "-o") == [1, "no"]
    assert parse_assignment(Config, "unknown.key=3") == ("unknown.key", 3)


CODES = {
    "hu": "hu", "hun": "hu", "hun_Latn": "hu", "hun-Latn": "hu", "HU": "hu", "no": "no", "NO": "no", "nor": "no",
    "nob": "nb", "nn": "nn", "nan": "nan", "zh-Hant": "zh-Hant", "zho_Hant": "zh-Hant", "hbs": "sh",
    "hbs_Cyrl": "sh-Cyrl",
    "iw": "he", "pt-BR": "pt-BR", "ell": "el", "qaa": "qaa", "fil": "fil", "ekk": "ekk", "swh": "swh", "und": "und",
}  # fmt: skip


@pytest.mark.parametrize(("given_code", "short"), CODES.items())
def test_language_codes(given_code: str, short: str) -> None:
    assert normalise(given_code) == short
    assert normalise(short) == short, "normalising twice changes nothing"


@pytest.mark.parametrize(
    ("code", "hint"),
    [("Hungarian", "`hu`"), ("gr", "`el`"), ("finish", "`fi`"), ("xx", "qaa"), ("", "BCP 47"),
     ("en_US.UTF-8", "BCP 47"),
     ("../etc", "BCP 47"), ("h" * 500, "BCP 47"), ("hu\n", None)],
)  # fmt: skip
def test_what_is_no_language_code(code: str, hint: str | None) -> None:
    if hint is None:  # white space around a code is forgiven
        assert normalise(code) == "hu"
        return
    with pytest.raises(ConfigError, match="is not a language code") as caught:
        normalise(code)
    assert hint in str(caught.value.hint)


@given(st.text(max_size=12))
def test_only_config_errors_come_out_of_language_codes(text: str) -> None:
    with suppress(ConfigError):
        assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("verb", "values", "hint"),
    [
        ("init-embeddings", {"slope": 1.0}, "it is an option of the method: `method_options.slope`"),
        ("init-embeddings", {"method": "omp", "slope": 1.0}, "did you mean"),
        ("init-embeddings", {"method": "nothing", "slope": 1.0}, "did you mean"),
        ("init-embeddings", {"sede": 1}, "did you mean `seed`?"),
        ("compare-embeddings", {"slope": 1.0}, "`method_options.position-weighted.slope`"),
        ("compare-embeddings", {"methods": ["mean"], "slope": 1.0}, "did you mean"),
        ("cpt", {"strategy": "lora", "rank": 8}, "it is an option of the method: `strategy_options.rank`"),
    ],
)
def test_an_option_of_the_method_is_sent_to_its_place(verb: str, values: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        validate(load(verb).config, values)
    assert hint in str(caught.value.hint)


def test_a_setting_of_the_step_among_the_options_of_its_method() -> None:
    needed = {"model": "m", "tokenizer": "t", "method": "position-weighted"}
    options = {"pad_to_multiple_of": 64}
    config = validate(load("init-embeddings").config, {**needed, "method_options": options})
    with pytest.raises(ConfigError, match="options of `position-weighted`: unknown key") as caught:
        init_embeddings.check(config)  # type: ignore[arg-type]
    assert caught.value.hint == "it is a setting of the step and no option of its method: `pad_to_multiple_of`"
