"""The service's metrics, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """The metrics of one service. No label holds anything that a client has sent."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "chexscale_requests_total", "Requests, by route and status", ["route", "status"], registry=registry
        )
        self.request_s = Histogram(
            "chexscale_request_seconds",
            "Seconds from a request's first line to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.files = Counter("chexscale_files_total", "Files, answered or refused", ["outcome"], registry=registry)
        self.decode_s = Histogram(
            "chexscale_decode_seconds",
            "Seconds to decode one file, without the wait for a decoder",
            buckets=SECONDS,
            registry=registry,
        )
        self.decoders_replaced = Counter(
            "chexscale_decoders_replaced_total", "Decoders that died or were stopped", registry=registry
        )
        self.inference_s = Histogram(
            "chexscale_inference_seconds", "Seconds to compute one batch", buckets=SECONDS, registry=registry
        )
        self.batch_size = Histogram("chexscale_batch_size", "Images per batch", buckets=BATCHES, registry=registry)
        self.waiting = Gauge("chexscale_files_in_work", "Files that are being read or answered", registry=registry)
        self.reloads = Counter("chexscale_reloads_total", "Models opened, including the first", registry=registry)
        self.model = Gauge("chexscale_model_info", "The model in use", ["name", "version", "mode"], registry=registry)
        self.registry_reachable = Gauge(
            "chexscale_registry_reachable", "Whether the model registry answers", registry=registry
        )

    def set_model(self, name: str, version: int, mode: str) -> None:
        """Records that this model answers from now on."""
        self.reloads.inc()
        self.model.clear()
        self.model.labels(name, version, mode).set(1)
