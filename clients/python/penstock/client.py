"""The client for ordinary code; ``AsyncClient`` is its twin for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack, overload

from penstock import inference, models
from penstock.answers import Classifications, Ranking, TagLists, Tokenizations
from penstock.bulk import Bulk
from penstock.channel import TlsSetting, open_channel
from penstock.exchange import Deadline, metadata_of
from penstock.inputs import Text, refuse_single
from penstock.methods import STREAM
from penstock.models import HealthStatus, Model
from penstock.options import Aggregation, CallOptions, ScoreFunction, StreamOptions, Task, TaskOptions
from penstock.schedules import Schedules
from penstock.stream import StreamItem, StreamResult, item_requests, open_request, results_of
from penstock.v1 import inference_pb2
from penstock.vectors import Embeddings
from penstock.wire import Wire, shielded

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 60.0


class Models:
    """The models of a server."""

    def __init__(self, wire: Wire, timeout_s: float | None) -> None:
        self._wire = wire
        self._timeout_s = timeout_s

    def list(self) -> list[Model]:
        """Returns all models, by name."""
        return self._wire.run(models.list_models(self._timeout_s))

    def get(self, name: str) -> Model:
        """Returns one model; NotFoundError if the server has none of that name."""
        return self._wire.run(models.get_model(name, self._timeout_s))


class Client:
    """Calls a Penstock server. Safe to share between threads; nothing is connected before the first call.

    Every method raises a ``PenstockError`` if the call fails. A list longer than ``rows_max`` is sent in
    several calls and its answers are joined in order; the timeout covers all of them.

    Args:
        address: ``host:port`` of the server.
        timeout_s: Longest time for a live call, retries included; None is no limit.
        tls: True for the system's root certificates, bytes for PEM roots, or grpc's own credentials.
        token: Sent as ``authorization: Bearer …``; use it with ``tls`` only, or on one machine.
        metadata: More gRPC metadata for every call.
        rows_max: Most texts of one call: the server's ``rows_max``.

    Attributes:
        bulk: Uploads, jobs and their results.
        schedules: Recurring jobs.
        models: The models of the server.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        tls: TlsSetting = False,
        token: str | None = None,
        metadata: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        rows_max: int = inference.ROWS_MAX,
    ) -> None:
        self._wire = Wire(address, open_channel(address, tls), metadata_of(metadata, token))
        self._timeout_s = timeout_s
        self._rows_max = rows_max
        self.address = address
        self.bulk = Bulk(self._wire, timeout_s)
        self.schedules = Schedules(self._wire, timeout_s)
        self.models = Models(self._wire, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in flight are cancelled. May be called again."""
        self._wire.close()

    def embed(
        self,
        texts: Iterable[str],
        *,
        model: str,
        normalize: bool | None = None,
        dimensions: int | None = None,
        **options: Unpack[CallOptions],
    ) -> Embeddings:
        """Computes one vector for each text.

        Args:
            texts: The texts, none empty.
            model: Name of the model.
            normalize: Whether vectors are scaled to unit length; None is the model's setting.
            dimensions: Keep only the first dimensions, for models trained for it.
            **options: See ``CallOptions``.
        """
        settings = self._settings(model, options)
        task = TaskOptions(normalize=normalize, dimensions=dimensions)
        return self._wire.run(inference.embed(texts, settings, task))

    def classify(
        self,
        texts: Iterable[Text],
        *,
        model: str,
        top_k: int | None = None,
        score_function: ScoreFunction | str | None = None,
        **options: Unpack[CallOptions],
    ) -> Classifications:
        """Scores each text, or (text, text) pair, over the model's labels.

        Args:
            texts: The texts or pairs, none empty.
            model: Name of the model.
            top_k: Return the best labels only; None is all.
            score_function: How scores follow from logits; None is the model's setting.
            **options: See ``CallOptions``.
        """
        settings = self._settings(model, options)
        task = TaskOptions(top_k=top_k, score_function=score_function)
        return self._wire.run(inference.classify(texts, settings, task))

    def tag(
        self,
        texts: Iterable[str],
        *,
        model: str,
        aggregation: Aggregation | str | None = None,
        score_min: float | None = None,
        **options: Unpack[CallOptions],
    ) -> TagLists:
        """Finds labelled spans in each text.

        Args:
            texts: The texts, none empty.
            model: Name of the model.
            aggregation: How the labels of word pieces are joined to spans.
            score_min: Drop spans that score below this.
            **options: See ``CallOptions``.
        """
        settings = self._settings(model, options)
        task = TaskOptions(aggregation=aggregation, score_min=score_min)
        return self._wire.run(inference.tag(texts, settings, task))

    @overload
    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        /,
        *,
        model: str,
        top_k: int | None = None,
        score_function: ScoreFunction | str | None = None,
        **options: Unpack[CallOptions],
    ) -> Ranking: ...
    @overload
    def rerank(
        self,
        texts: Iterable[str],
        *,
        query: str,
        model: str,
        top_k: int | None = None,
        score_function: ScoreFunction | str | None = None,
        **options: Unpack[CallOptions],
    ) -> Ranking: ...
    def rerank(
        self,
        *places: str | Iterable[str],
        model: str,
        query: str | None = None,
        texts: Iterable[str] | None = None,
        top_k: int | None = None,
        score_function: ScoreFunction | str | None = None,
        **options: Unpack[CallOptions],
    ) -> Ranking:
        """Scores each document against a query: ``rerank(query, texts)`` or ``rerank(texts, query=…)``.

        Args:
            *places: The query and the documents, or the documents.
            model: Name of the model.
            query: The query, if it is not the first argument.
            texts: The documents, none empty, if they are not an argument by place.
            top_k: Return the best documents only; None is all.
            score_function: How scores follow from logits; None is the model's setting.
            **options: See ``CallOptions``.

        Returns:
            The documents by falling score, each with its index in ``texts``.
        """
        settings = self._settings(model, options)
        asked = inference.rerank_arguments(places, query, texts)
        return self._wire.run(inference.rerank(*asked, settings, top_k, score_function))

    def tokenize(
        self,
        texts: Iterable[Text],
        *,
        model: str,
        special_tokens: bool = True,
        return_tokens: bool = True,
        return_offsets: bool = True,
        **options: Unpack[CallOptions],
    ) -> Tokenizations:
        """Splits texts or pairs into the model's tokens; ``tokens_max`` unset means no limit here.

        Args:
            texts: The texts or pairs; they may be empty.
            model: Name of the model.
            special_tokens: Add the special tokens ([CLS], [SEP] and the like).
            return_tokens: Return the token strings as well as their ids.
            return_offsets: Return where each token stands in its text.
            **options: See ``CallOptions``.
        """
        how = inference.TokenizeSettings(special_tokens, return_tokens, return_offsets)
        return self._wire.run(inference.tokenize(texts, self._settings(model, options), how))

    def stream(
        self,
        texts: Iterable[StreamItem],
        *,
        model: str,
        task: Task | str,
        **options: Unpack[StreamOptions],
    ) -> Iterator[StreamResult]:
        """Answers texts as they come, while more are sent; leaving the loop ends the stream.

        ``texts`` is read on another thread, as fast as the server takes texts; it may block. If it fails,
        its error is raised here after the answers to the texts before.

        Args:
            texts: Texts, (id, text) pairs, ``StreamText`` or ``StreamAppend``.
            model: Name of the model.
            task: What to compute.
            **options: See ``StreamOptions``; unlike other calls, a stream has no timeout unless set here.
        """
        refuse_single(texts, "texts")
        opening = open_request(model, task, options)
        return self._answers(opening, texts, options.get("timeout_s"))

    def health(self, model: str = "") -> HealthStatus:
        """Tells whether the server, or one model, answers requests; NotFoundError for an unknown model."""
        return self._wire.run(models.health(model, self._timeout_s))

    def _settings(self, model: str, options: CallOptions) -> inference.CallSettings:
        return inference.CallSettings(model, options, self._timeout_s, self._rows_max)

    def _answers(
        self, opening: inference_pb2.StreamRequest, texts: Iterable[StreamItem], timeout_s: float | None
    ) -> Iterator[StreamResult]:
        failures: list[Exception] = []

        def requests() -> Iterator[inference_pb2.StreamRequest]:
            yield opening
            yield from shielded(map(item_requests(), texts), failures)

        for response in self._wire.stream(STREAM, requests(), Deadline(timeout_s).remaining_s()):
            yield from results_of(response)
        if failures:
            raise failures[0]
