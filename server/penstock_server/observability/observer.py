"""What the parts of a server tell about their work, behind one small protocol."""

from __future__ import annotations

from typing import Protocol

from penstock_server.domain.answer import AnswerInfo
from penstock_server.domain.model import ModelKey
from penstock_server.domain.tasks import RequestClass
from penstock_server.domain.work import BatchPart, BatchPlan, BatchTimes


class Observer(Protocol):
    """Hears what happens. Called on the event loop, often: must be quick, must not block, must not raise."""

    def rpc_ended(self, method: str, code: str) -> None:
        """A call of ours ended with a gRPC status code, such as ``OK``."""

    def answered(self, method: str, tenant: str, rows: int, info: AnswerInfo) -> None:
        """A request, or a text of a stream, was answered."""

    def not_answered(
        self,
        method: str,
        tenant: str,
        rows: int,
        model: ModelKey,
        request_class: RequestClass | None,
        why: str,
        limit: str = "",
    ) -> None:
        """A request or text has no answer; ``why`` is an error's reason, ``limit`` the limit it met."""

    def demoted(self, asked: RequestClass, served: RequestClass) -> None:
        """A request was admitted in a lower class than it asked for."""

    def expired(self, part: BatchPart) -> None:
        """Rows were given up because their deadline had passed."""

    def rows_shared(self, rows: int) -> None:
        """Rows were not computed because identical ones were."""

    def batch_ran(self, lane_kind: str, plan: BatchPlan, times: BatchTimes) -> None:
        """A batch was computed."""

    def live_waited_behind_bulk(self, waited_ns: int) -> None:
        """Live work arrived while the live lane ran a batch of other work, and waited so long for its end."""


class _SilentObserver:
    """Tells nobody."""

    def rpc_ended(self, method: str, code: str) -> None:
        """Does nothing."""

    def answered(self, method: str, tenant: str, rows: int, info: AnswerInfo) -> None:
        """Does nothing."""

    def not_answered(
        self,
        method: str,
        tenant: str,
        rows: int,
        model: ModelKey,
        request_class: RequestClass | None,
        why: str,
        limit: str = "",
    ) -> None:
        """Does nothing."""

    def demoted(self, asked: RequestClass, served: RequestClass) -> None:
        """Does nothing."""

    def expired(self, part: BatchPart) -> None:
        """Does nothing."""

    def rows_shared(self, rows: int) -> None:
        """Does nothing."""

    def batch_ran(self, lane_kind: str, plan: BatchPlan, times: BatchTimes) -> None:
        """Does nothing."""

    def live_waited_behind_bulk(self, waited_ns: int) -> None:
        """Does nothing."""


SILENT: Observer = _SilentObserver()
