"""A collector: receives spans and metrics by OTLP over HTTP, and keeps them."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS = {3: "client", 4: "producer", 5: "consumer"}


class ReceivedSpan(NamedTuple):
    """A span as it came."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    is_error: bool
    took_ns: int


class Collector:
    """Listens on a port of this machine while its block runs."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.resources: list[dict[str, Any]] = []
        self.sums: dict[tuple[str, str, tuple[tuple[str, Any], ...]], float] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead programs here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }

    def named(self, name: str) -> list[ReceivedSpan]:
        """The spans of that name."""
        return [span for span in self.spans if span.name == name]

    def total(self, service: str, metric: str, **attributes: str) -> float:
        """The sum of a counter, or the count of a histogram, over all that has these attributes."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}.items()
        return sum(
            value
            for (of, name, labels), value in self.sums.items()
            if (of, name) == (service, metric) and wanted <= dict(labels).items()
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take_spans(self, body: bytes) -> bytes:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource.attributes)
            self.resources.append(resource)
            for scope in group.scope_spans:
                assert scope.scope.name == "pbus"
                self.spans += [
                    _received(str(resource["service.name"]), span) for span in scope.spans
                ]
        return ExportTraceServiceResponse().SerializeToString()

    def _take_metrics(self, body: bytes) -> bytes:
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            service = str(_attributes(group.resource.attributes)["service.name"])
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    self._take_metric(service, metric)
        return ExportMetricsServiceResponse().SerializeToString()

    def _take_metric(self, service: str, metric: Any) -> None:
        points = metric.sum.data_points or metric.histogram.data_points
        for point in points:
            labels = tuple(sorted(_attributes(point.attributes).items()))
            value = point.as_int if metric.sum.data_points else point.count
            self.sums[service, metric.name, labels] = value

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        takers = {"/v1/traces": self._take_spans, "/v1/metrics": self._take_metrics}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                answer = takers[self.path](body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


def _received(service: str, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        is_error=span.status.code == 2,
        took_ns=span.end_time_unix_nano - span.start_time_unix_nano,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in pairs}
