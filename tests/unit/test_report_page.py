"""The page: nothing runs or is loaded, data is escaped, equal input gives equal bytes, drawings have right places."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from langadapt.core.artifact import Artifact, Identity, Output, writing
from langadapt.core.io import pretty_json, write_durably, write_json_lines
from langadapt.core.languages import set_title
from langadapt.core.progress import Progress
from langadapt.report import charts, markdown, page
from langadapt.report.collect import Content, Sources, collect

EVIL = "</style><script>alert(1)</script><img src=x onerror=alert(1)>\"'`"


def entry(control: bool = False, **changes: Any) -> dict[str, Any]:
    bits: dict[str, Any] = {"base": 2.8, "adapted": 1.9, "uniform_base": 7.5, "uniform_adapted": 4.1}
    bits |= {"ratio": 0.679, "ratio_low": 0.66, "ratio_high": 0.7, "delta": -0.9, "delta_low": -1.0, "delta_high": -0.8}
    bits |= {"verdict": "better", "detectable": 0.14}
    if control:
        bits |= {"control": 1.91, "uniform_control": 7.5, "verdict_control": "no detectable change"}
        bits |= {"delta_control": -0.01, "delta_control_low": -0.03, "delta_control_high": 0.01}
        bits |= {
            "ratio_control": 0.995,
            "ratio_control_low": 0.98,
            "ratio_control_high": 1.005,
            "detectable_control": 0.03,
        }
    return {
        "bits_per_byte": bits | changes,
        "bytes": 30000,
        "segments": 55,
        "documents": 50,
        "sentences": ["Hungarian, set hu: better. The adapted model needs 1.900 bits per byte."],
        "reason": None,
    }


def summary(text: str = "plain", control: bool = False, **changes: Any) -> dict[str, Any]:
    models = {"base": {"digest": "a" * 64, "parameters": 10, "rows": 300, "dtype": text}}
    models |= dict.fromkeys(["adapted", "control"] if control else ["adapted"], models["base"])
    language = {"name": "Hungarian", "role": "target", "sets": {"hu": entry(control, **changes)}}
    language |= {"tokens_per_word": {"base": 4.0, "adapted": 2.0}, "bytes_per_token": {"base": 2.0, "adapted": 4.0}}
    english = {"name": "English", "role": "source", "sets": {"en": entry(control)}, "held_out_lines_same_ids": 0.998}
    return {
        "languages": {"hu": language, "en": english},
        "models": models,
        "target": "hu",
        "settings": {"document_separator": text, "compute": "fp32", "set_bytes": 30000, "bootstrap_samples": 10000},
        "warnings": [text],
    }


def samples(text: str) -> list[dict[str, Any]]:
    split = {"kind": "split", "lang": "hu", "text": text, "base": [[text, 1], ["ő", 2]], "adapted": [[text, 1]]}
    told = {"kind": "continuation", "set": "hu", "document": text, "prompt": text, "actual": text, "base": text}
    return [split, told | {"adapted": text}]


def artifact(place: Path, kind: str, files: dict[str, Any], facts: dict[str, Any], config: dict[str, Any]) -> Artifact:
    who = Identity(kind, "test", 1, config, {})
    with writing(place, who, inputs={}, progress=Progress()) as (_, out):
        assert isinstance(out, Output)
        for name, content in files.items():
            if name.endswith(".jsonl"):
                write_json_lines(out.folder / name, content)
            else:
                write_durably(out.folder / name, pretty_json(content))
        return out.commit(facts)


def sources(folder: Path, text: str = "plain", **changes: Any) -> Sources:
    scores = {"summary.json": summary(text, **changes), "samples.jsonl": samples(text)}
    metrics = [{"step": at, "tokens": at * 100, "loss": 5 - at / 20} for at in range(1, 40)]
    metrics += [{"step": at, "tokens": at * 100, "probes": {text: 2 - at / 50}} for at in (0, 20, 39)]
    source = {"planned_tokens": 4000, "consumed_tokens": 4000, "consumed_bytes": 9000, "epochs": 0.5}
    corpus = {"lang": "hu", "documents": 9, "bytes": 99, "dropped": {text: {"documents": 2, "bytes": 8}}}
    model = {"metrics.jsonl": metrics, "ledger.json": {"sources": {text: source}}}
    return Sources(
        scores=artifact(folder / "scores", "scores", scores, {}, {}),
        model=artifact(folder / "model", "model", model, {"tokens": 4000, "steps": 40}, {"strategy": text}),
        corpora={"hu": artifact(folder / "hu", "corpus", {"documents.jsonl": []}, corpus, {})},
    )


class Reader(HTMLParser):
    """Collects tags and attributes as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "line", "circle", "polyline", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    yield collect(sources(tmp_path))


@pytest.mark.parametrize("control", [False, True])
def test_hostile_data_is_shown_and_does_nothing(tmp_path: Path, control: bool) -> None:
    reader = read(page.render(collect(sources(tmp_path, EVIL, control=control), title=EVIL)))
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "href", "srcset")]
    assert reader.tags.count("style") == 1 and EVIL in reader.text


def test_markdown_holds_no_html_from_data(tmp_path: Path) -> None:
    text = markdown.render(collect(sources(tmp_path, EVIL), title=EVIL))
    assert "<" not in text and "alert(1)" in text


def test_the_page_loads_nothing(content: Content) -> None:
    html = page.render(content)
    assert not re.search(r"https?:|url\(|@import|src=|href=", html)


def test_the_curve_of_sizes_is_drawn_where_a_tokenizer_has_one(tmp_path: Path, content: Content) -> None:
    assert "How many tokens" not in page.render(content)
    points = [{"added": at * 500, "bytes_per_token": 2 + at / 8, "saved_by_next_1000": 9} for at in range(5)]
    said = f"stopped at 1,500: {EVIL}"
    facts = {"added": 1500, "auto": {"size": 1500, "said": said}}
    made = artifact(tmp_path / "tokenizer", "tokenizer", {"curve.json": {"points": points}}, facts, {"size": "auto"})
    known = sources(tmp_path / "more")
    html = page.render(collect(Sources(scores=known.scores, tokenizer=made)))
    reader = read(html)
    assert said in reader.text and "script" not in reader.tags
    assert '<line class="mark" x1="75.0" x2="75.0"' in html
    lines = [value for name, value in reader.attributes if name == "points"]
    assert len(lines) == 1 and [point.split(",")[0] for point in lines[0].split()] == ["0", "25", "50", "75", "100"]
    old = artifact(tmp_path / "old", "tokenizer", {"checks.json": {}}, {"added": 5}, {})
    assert "How many tokens" not in page.render(collect(Sources(scores=known.scores, tokenizer=old)))


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    one, two = (collect(sources(tmp_path / name)) for name in ("one", "two"))
    assert page.render(one) == page.render(two)
    assert markdown.render(one) == markdown.render(two)
    assert str(tmp_path) not in page.render(one) + markdown.render(one)


def test_the_verdict_stands_first_and_targets_before_sources(content: Content) -> None:
    text = read(page.render(content)).text
    assert text.index("better") < text.index("Bits per byte")
    assert text.index("Hungarian") < text.index("English")


def test_scores_alone_are_enough(tmp_path: Path) -> None:
    found = collect(Sources(scores=sources(tmp_path).scores))
    reader = read(page.render(found))
    assert "polyline" not in reader.tags and "Tokens read, by source" not in reader.text
    assert "1.900" in markdown.render(found)


def test_a_missing_score_is_a_dash_not_a_number(tmp_path: Path) -> None:
    keys = ("adapted", "ratio", "ratio_low", "ratio_high", "delta", "delta_low", "delta_high", "verdict", "detectable")
    found = collect(sources(tmp_path, **dict.fromkeys(keys)))
    assert "no score" in read(page.render(found)).text
    assert "no score" in markdown.render(found)


def test_everything_reported_is_there(content: Content) -> None:
    text = read(page.render(content)).text
    for wanted in ("2.800", "1.900", "−0.900", "−1.000 to −0.800", "99.80 %", "plain: 2 documents", "4,000", "40"):
        assert wanted in text, wanted


def test_interval_places() -> None:
    strip = charts.interval_strip(-10, -5, 0, charts.Scale(-10, 10), "better", "x")
    assert 'x1="0.0%" x2="25.0%"' not in strip
    assert 'class="whisker better" x1="0.0%" x2="50.0%"' in strip
    assert 'class="dot better" cx="25.0%"' in strip and 'class="zero" x1="50.0%"' in strip


def test_no_interval_no_whisker() -> None:
    assert "whisker" not in charts.interval_strip(None, 1.0, None, charts.Scale(0, 2), "none", "x")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (-3.2, 1.1, [-3, -2, -1, 0, 1]), (0.0, 0.35, [0, 0.1, 0.2, 0.3]), (1, 1, [1])],
)
def test_ticks_are_round_and_inside(low: float, high: float, ticks: list[float]) -> None:
    assert charts.nice_ticks(low, high) == pytest.approx(ticks)


def test_tick_labels() -> None:
    assert [charts.show_tick(value) for value in (20000, 1.5e6, -3.0, 0.25)] == ["20k", "1.5M", "−3", "0.25"]


def test_running_mean_equals_the_loop() -> None:
    points = [(at, float(at * at % 7)) for at in range(20)]
    for at, (place, value) in enumerate(charts.running_mean(points, 4)):
        window = [points[i][1] for i in range(20) if at - 4 < i <= at]
        assert place == at and value == pytest.approx(sum(window) / len(window))


def test_a_line_goes_through_its_points() -> None:
    html = charts.line_chart({"a": [(0, 1.0), (10, 3.0)]}, x_label="x", y_label="y")
    places = re.search(r'polyline class="line s0" points="([^"]+)"', html)
    assert places is not None
    (x0, y0), (x1, y1) = (tuple(map(float, pair.split(","))) for pair in places[1].split())
    assert (x0, x1) == (0, 100) and y0 > y1  # higher values stand higher, SVG counts from above
    assert charts.line_chart({}, x_label="x", y_label="y") == ""


def test_line_breaks_of_a_model_stay_on_one_line() -> None:
    assert page.one_line(" a\n\n#\n\n b ") == "a ⏎ # ⏎ b"


def test_a_card_does_not_say_its_heading_twice() -> None:
    text = f"{set_title('Hungarian', 'held-out')}: better. The adapted model needs less."
    assert page._without_title(text, "Hungarian", "held-out", "better") == "The adapted model needs less."
