"""Idle connections: the launcher keeps them longer than proxies do."""

from __future__ import annotations

import re

import pytest

from pipecat_base.config.settings import ServerLimits
from pipecat_base.server.server import Server
from tests.support.launchers import ROOT

AWS_AND_INGRESS_NGINX_SECONDS = 60


def test_idle_connections_are_kept_longer_than_load_balancers_reuse_them() -> None:
    assert ServerLimits().keep_alive > AWS_AND_INGRESS_NGINX_SECONDS
    assert Server(None, ServerLimits()).config.timeout_keep_alive == ServerLimits().keep_alive


@pytest.mark.parametrize("file", ["nginx/nginx.conf", "caddy/Caddyfile"])
def test_the_proxies_files_give_up_idle_connections_before_the_launcher(file: str) -> None:
    found = re.findall(r"keepalive(?:_timeout)? (\d+)s", (ROOT / "deploy" / file).read_text())
    assert found
    assert all(int(seconds) < ServerLimits().keep_alive for seconds in found)
