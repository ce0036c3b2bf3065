"""A control plane in memory: answers by rehearsed words, fails when told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from malleable.domain.errors import MalleableError, NotFound
from malleable.wire.gateway import DesiredView, ReportsRequest, SignsRequest


class RehearsedControlPlane:
    """``ControlPlane`` without a wire. ``failures`` are raised first, one per call."""

    def __init__(self) -> None:
        self.views: list[DesiredView] = []
        self.asked: list[tuple[int, float]] = []
        self.reports: list[ReportsRequest] = []
        self.signs: list[SignsRequest] = []
        self.files: dict[tuple[str, str], bytes] = {}
        self.fetched: list[str] = []
        self.failures: list[MalleableError] = []
        self.heard = threading.Condition()

    def gateway_desired(self, after: int, wait_s: float) -> DesiredView:
        self.asked.append((after, wait_s))
        self._fail()
        return self.views.pop(0)

    def gateway_report(self, request: ReportsRequest) -> None:
        self._fail()
        with self.heard:
            self.reports.append(request)
            self.heard.notify_all()

    def gateway_signs(self, request: SignsRequest) -> None:
        self._fail()
        with self.heard:
            self.signs.append(request)
            self.heard.notify_all()

    @contextmanager
    def gateway_file(self, image_id: UUID, name: str) -> Iterator[Iterator[bytes]]:
        self.fetched.append(name)
        content = self.files.get((str(image_id), name))
        if content is None:
            raise NotFound
        yield iter((content[:1], content[1:]))
        self._fail()

    @contextmanager
    def gateway_document(self, boot_id: UUID, name: str) -> Iterator[Iterator[bytes]]:
        with self.gateway_file(boot_id, name) as chunks:
            yield chunks

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
