"""Documents of Parquet and Arrow files: one a row, a batch at a time, every batch validated before it is touched."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError
from langadapt.core.unpack import MAX_RATIO, RATIO_COUNTS_FROM
from langadapt.corpus.files import Kind
from langadapt.corpus.lines import Line
from langadapt.corpus.reading import MAX_DOCUMENT_BYTES, RawDocument, Reading

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 100
_BUFFER_BYTES = 1024 * 1024


def column_documents(reading: Reading, kind: Kind) -> Iterator[RawDocument]:
    """One document a row, from the column `text_field`.

    DataError for a damaged file, and for a column that is not there or does not hold text.
    """
    import pyarrow as pa

    reading.rule = "row"
    fields = [reading.settings.text_field]
    if reading.settings.lang_field is not None:
        fields.append(reading.settings.lang_field)
    try:
        row = done = 0
        limit = max(RATIO_COUNTS_FROM, MAX_RATIO * reading.path.stat().st_size)
        for batch in _parquet(reading, fields) if kind == "parquet" else _arrow(reading, fields):
            texts = _values(batch.column(0))
            langs = _values(batch.column(1)) if len(fields) > 1 else [None] * len(texts)
            for data, lang in zip(texts, langs, strict=True):
                row += 1
                done += len(data or b"")
                document = _take(reading, row, data, lang)
                if document is not None:
                    yield document
            if done > limit:
                # dictionary pages can repeat one value a million times
                raise DataError(f"`{reading.path}` unpacks to more than {MAX_RATIO} times its size; this is not text")
    except (pa.ArrowException, OSError) as error:
        # an OSError is pyarrow's too: "Couldn't deserialize thrift", "Truncated file"
        raise DataError(
            f"`{reading.path}` is damaged {kind.capitalize()} data: {' '.join(str(error).split())[:200]}",
            hint="copy or download it again",
        ) from error


def _take(reading: Reading, row: int, data: bytes | None, lang: bytes | None) -> RawDocument | None:
    if data is None:
        reading.seen_lines += 1
        reading.bad(Line(row, row, b""), "not-a-string", "no value")
        return None
    line = Line(row, row, data)
    if len(data) > MAX_DOCUMENT_BYTES:
        reading.seen_lines += 1
        reading.bad(line, "line-too-long")
        return None
    text = reading.decode(line)
    if text is None or not text.strip():
        return None
    return reading.document(line, text, None if lang is None else lang.decode("utf-8", "replace"))


def _parquet(reading: Reading, fields: list[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(reading.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        _check(reading, file.schema_arrow, fields)
        # a page and 100 rows at a time: memory does not grow with the file
        yield from (batch.select(fields) for batch in file.iter_batches(BATCH_ROWS, columns=fields, use_threads=False))


def _arrow(reading: Reading, fields: list[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    with pa.memory_map(str(reading.path)) as source:
        if source.read(6) == b"ARROW1":
            source.seek(0)
            file = pa.ipc.open_file(source)
            _check(reading, file.schema, fields)
            yield from (file.get_batch(number).select(fields) for number in range(file.num_record_batches))
        else:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            _check(reading, stream.schema, fields)
            yield from (batch.select(fields) for batch in stream)


def _check(reading: Reading, schema: "pa.Schema", fields: list[str]) -> None:
    """DataError unless every field is there once and holds text."""
    import pyarrow as pa

    for name in fields:
        found = schema.get_all_field_indices(name)
        if len(found) != 1:
            known = ", ".join(f"{field.name} ({field.type})" for field in schema)
            what = f"{len(found)} columns called `{name}`" if found else f"no column `{name}`; its columns: {known}"
            raise DataError(f"`{reading.path}` has {what}", hint="-o text_field=NAME")
        kind = schema.field(found[0]).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise DataError(
                f"the column `{name}` of `{reading.path}` holds {kind}, not text", hint="-o text_field=NAME"
            )


def _values(column: Any) -> list[bytes | None]:
    """The UTF-8 bytes of a text column, not yet known to be UTF-8; its offsets are checked before they are followed."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    column.validate()
    plain = column.cast(pa.large_binary())
    plain.validate(full=True)
    return list(plain.to_pylist())
