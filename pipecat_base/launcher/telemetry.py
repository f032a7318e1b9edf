"""The event bus of this process, and the sinks that the settings ask for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipecat_base.auth import host_and_origin
from pipecat_base.bot import installed
from pipecat_base.config.settings import Settings
from pipecat_base.errors import SettingsInvalid
from pipecat_base.telemetry.bus import EventBus, EventSink

if TYPE_CHECKING:
    from pipecat_base.server.metrics_server import MetricsServer
    from pipecat_base.telemetry.metrics import Metrics
    from pipecat_base.telemetry.reports import Reports
    from pipecat_base.telemetry.resources import ResourceHistory


@dataclass(frozen=True)
class Telemetry:
    event_bus: EventBus
    metrics: Metrics | None = None
    metrics_server: MetricsServer | None = None
    reports: Reports | None = None
    resources: ResourceHistory | None = None

    def close(self, within: float) -> None:
        """Let every sink finish, and answer no more scrapes; blocks for at most ``within`` seconds."""
        deadline = time.monotonic() + within
        self.event_bus.close(within)
        if self.metrics_server is not None:
            self.metrics_server.close(max(0.0, deadline - time.monotonic()))


def telemetry(settings: Settings) -> Telemetry:
    """Start the sinks that the settings ask for.

    Raises:
        SettingsInvalid: PIPECAT_REPORTS_DIR cannot be used.
        PortUnavailable: PIPECAT_METRICS_PORT cannot be listened on.
    """
    sinks: list[EventSink] = []
    metrics: Metrics | None = None
    metrics_server: MetricsServer | None = None
    reports: Reports | None = None
    resources: ResourceHistory | None = None
    if settings.telemetry.metrics_port is not None:
        from pipecat_base.server.metrics_server import MetricsServer
        from pipecat_base.telemetry.metrics import Metrics

        metrics = Metrics()
        host = settings.telemetry.metrics_host or settings.server.host
        guard = partial(host_and_origin.of_pod, host=host, gateway=settings.gateway, websockets=settings.websockets)
        metrics_server = MetricsServer(host, settings.telemetry.metrics_port, metrics.registry, settings.limits, guard)
        metrics.describe(pipecat=installed.version(installed.PIPECAT), slots=settings.sessions.max_sessions)
        sinks.append(metrics)
    if (
        settings.telemetry.reports_dir is not None
        or settings.telemetry.report_url is not None
        or settings.gateway.is_enabled
    ):
        from pipecat_base.telemetry.reports import Reports

        try:
            reports = Reports(
                settings.telemetry.reports_dir,
                settings.telemetry.report_url,
                settings.telemetry.report_secret,
                content=settings.telemetry.report_content,
            )
        except OSError as error:
            raise SettingsInvalid(
                [f"PIPECAT_REPORTS_DIR: {settings.telemetry.reports_dir} cannot be written ({error.strerror})"]
            ) from None
        sinks.append(reports)
    if settings.gateway.is_enabled:
        from pipecat_base.telemetry.resources import ResourceHistory

        resources = ResourceHistory()
        sinks.append(resources)
    if settings.telemetry.event_publisher is not None:
        from pipecat_base.telemetry.event_publisher import EventPublisher

        sinks.append(EventPublisher(settings.telemetry.event_publisher, content=not settings.telemetry.exclude_content))
    return Telemetry(EventBus(sinks), metrics, metrics_server, reports, resources)
