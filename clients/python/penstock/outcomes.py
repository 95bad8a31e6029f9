"""What became of one text of a stream or one row of a job."""

from __future__ import annotations

from penstock.answers import Classification, Span, spans_of
from penstock.v1 import bulk_pb2, inference_pb2
from penstock.vectors import Embedding

Answer = Embedding | Classification | tuple[Span, ...]


def answer_of(message: inference_pb2.StreamResult | bulk_pb2.RowResult) -> Answer | None:
    """Reads the answer of a message, None if it holds none."""
    outcome = message.WhichOneof("outcome")
    if outcome == "embedding":
        return Embedding.of(message.embedding)
    if outcome == "classification":
        return Classification.of(message.classification)
    return spans_of(message.tags) if outcome == "tags" else None
