"""A process that holds the bot: the launcher's own application, on the connections that it is handed."""

from __future__ import annotations

import time

from pipecat_base.api import app as application
from pipecat_base.api import assembly
from pipecat_base.api.capabilities import Capabilities
from pipecat_base.api.internal import InternalRoutes
from pipecat_base.bot.assembly import for_worker, local_pod, session_registry
from pipecat_base.bot.imported import Imported
from pipecat_base.bot.leftovers import Leftovers
from pipecat_base.config.settings import Settings
from pipecat_base.launcher import worker_exit
from pipecat_base.launcher.event_sender import EventSender
from pipecat_base.launcher.served_requests import ServedRequests
from pipecat_base.logs.logger import Logs, logger
from pipecat_base.server import server
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.server.loop_monitor import watch_lag
from pipecat_base.workers.fork_server import exit_process
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import FILE, MAX_URL, MOQ, Noted
from pipecat_base.workers.limits import EXIT_GRACE

LAG_INTERVAL_SECONDS = 5.0


def work(channel: Channel, settings: Settings, imported: Imported, logs: Logs) -> None:
    logs.runs_one_session = not settings.workers.calls_share_process and (
        settings.workers.calls_before_restart in (None, 1)
    )
    leftovers = server.run(_serve(channel, settings, imported, logs), event_loop=settings.server.event_loop)
    worker_exit.finish(leftovers, imported.bot.project)


async def _serve(channel: Channel, settings: Settings, imported: Imported, logs: Logs) -> Leftovers:
    """Serve until the launcher closes the worker; return what the bot has left running, which was waited for."""
    lifecycle = Lifecycle()
    lifecycle.ready()

    events = EventSender(channel, settings.workers.calls_per_process)

    emits_events = settings.telemetry.is_observed or settings.gateway.is_enabled
    measures_lag = settings.telemetry.metrics_port is not None
    settings = for_worker(settings)
    registry, memory = session_registry(settings, lifecycle.refusal)
    pod = local_pod(settings, imported, registry, memory, logs, events.send if emits_events else None)
    pod.leftovers.end_process_with(
        lambda: exit_process(0), 2 * settings.shutdown.teardown_timeout + FINAL_REQUESTS_SECONDS + EXIT_GRACE
    )
    capabilities = Capabilities(pod.capability_problems)
    routes = assembly.session_routes(settings, pod, capabilities, tokens=None)
    routes += assembly.upload_routes(
        settings.files, pod, lambda session_id, url: _report_upload(channel, session_id, url)
    )
    takes_whatsapp = assembly.whatsapp_calls(settings.whatsapp, pod) is not None
    app = application.build(routes, assembly.missing_routes(settings, pod.about, takes_whatsapp=takes_whatsapp))
    internal = InternalRoutes(
        pod, capabilities, lambda session_id, found: channel.send(Noted(session_id, MOQ, list(found)))
    ).app()
    measuring = []
    if measures_lag:
        measuring.append(
            watch_lag(lambda lag: events.send(None, "process_loop_lag", lag, time.time()), LAG_INTERVAL_SECONDS)
        )
    await ServedRequests(channel, pod, app, internal, settings.limits, imported.bot.project, measuring).run()
    return pod.leftovers


def _report_upload(channel: Channel, session_id: str, url: str) -> None:
    """Report an upload: the launcher deletes it if this process dies."""
    if len(url) <= MAX_URL:
        channel.send(Noted(session_id, FILE, [url]))
    else:
        logger.warning(f"A file's URL has {len(url)} characters: the file stays if the bot's process dies")
