"""YAML files of the operator (see `watchkeeper.tools.documents`)."""

from watchkeeper.tools.documents import Document, DocumentError, read_document

__all__ = ["Document", "DocumentError", "read_document"]
