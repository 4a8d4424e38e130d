"""What was found and removed while reading: counts by reason, and where the first of each kind was."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of a pass over text; every removal has a reason.

    `changed` counts repairs inside kept text (control characters, line ends); `where` keeps the first place of each.
    """

    changed: dict[str, int] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, size: int, where: str, *, documents: int = 1) -> None:
        """Count text of `size` bytes that will not be in the corpus; `where` is empty if no one place can be named."""
        self.documents[reason] = self.documents.get(reason, 0) + documents
        self.bytes[reason] = self.bytes.get(reason, 0) + size
        if where:
            self.where.setdefault(reason, where)

    def change(self, what: str, amount: int, where: str = "") -> None:
        """Count `amount` repairs of one kind."""
        if amount:
            self.changed[what] = self.changed.get(what, 0) + amount
            if where:
                self.where.setdefault(what, where)

    def dropped(self) -> dict[str, dict[str, int]]:
        """For the manifest: reason -> documents, bytes."""
        return {
            reason: {"documents": self.documents[reason], "bytes": self.bytes[reason]}
            for reason in sorted(self.documents)
        }

    def worst(self) -> str | None:
        """The reason that took most bytes."""
        return max(sorted(self.bytes), key=lambda reason: self.bytes[reason], default=None)
