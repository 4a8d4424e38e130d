"""Files -> raw documents, whatever their format: strict UTF-8, bounded memory, every loss counted."""

from collections.abc import Iterator

from langadapt.core.errors import DataError
from langadapt.core.unpack import open_bytes
from langadapt.corpus.columns import column_documents
from langadapt.corpus.files import Kind, kind_of, plain_name
from langadapt.corpus.plain import SNIFF_BYTES, conllu_documents, json_documents, text_documents
from langadapt.corpus.reading import RawDocument, Reading, ReadSettings
from langadapt.corpus.tabular import csv_documents

__all__ = ["FileReader", "RawDocument", "ReadSettings"]


class FileReader(Reading):
    """Reads one file of any format."""

    def documents(self) -> Iterator[RawDocument]:
        """The documents in file order. DataError for what is not text, or too often not readable."""
        yield from self._documents(kind_of(self.path))
        self.judge()

    def _documents(self, kind: Kind | None) -> Iterator[RawDocument]:
        if kind == "parquet" or kind == "arrow":
            return column_documents(self, kind)
        if kind == "csv" or kind == "tsv":
            return csv_documents(self, kind)
        if kind == "conllu":
            return conllu_documents(self)
        if kind == "json" or (kind is None and self._begins_as_json()):
            return json_documents(self)
        return text_documents(self)

    def _begins_as_json(self) -> bool:
        with open_bytes(self.path) as stream:
            first = stream.peek(SNIFF_BYTES)[:SNIFF_BYTES].lstrip()[:1]
        if first == b"[" and plain_name(self.path).lower().endswith(".json"):
            raise DataError(
                f"`{self.path}` holds one JSON array; langadapt reads one JSON object a line",
                hint=f"jq -c '.[]' '{self.path}' > '{self.path.stem}.jsonl'",
            )
        return first == b"{"
