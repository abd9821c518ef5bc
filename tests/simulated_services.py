"""Simulated services beside a lab's own: more targets of its Prometheus, which one of its hosts answers for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e.faults import NAMESPACE, read
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

HOST = "collectors-1"
# A service of the lab is scraped by two jobs, a simulated one at two ports.
PORTS = (9111, 9112)
# Whose page they answer with: the longest of our services.
MODEL = "trade-executor"
# What is counted goes on being counted, so that no sample is as the one before.
SERVER = r"""
import re, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COUNTED = re.compile(r"^([\w:]+_(?:total|bucket|sum|count)(?:\{.*\})?) (\S+)$", re.MULTILINE)
page, began = open("metrics").read(), time.monotonic()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        passed = time.monotonic() - began
        body = COUNTED.sub(lambda found: f"{found[1]} {float(found[2]) + passed}", page).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


for port in sys.argv[1:]:
    threading.Thread(target=ThreadingHTTPServer(("", int(port)), Handler).serve_forever).start()
"""
FOLDER = "/run/simulated-services"
START = f"""
systemctl --quiet is-active simulated-services && systemctl stop simulated-services
systemd-run --quiet --unit=simulated-services --collect --working-directory={FOLDER} \
    python3 server.py {" ".join(map(str, PORTS))}
"""
STOP = f"systemctl stop simulated-services; rm -rf {FOLDER}"
PLAY_PROMETHEUS = ("site.yml", "--tags", "prometheus")


def entries(count: int, address: str) -> list[dict[str, object]]:
    """The inventory's `prometheus_external_targets` for so many services at an address."""
    targets = [f"{address}:{port}" for port in PORTS]
    return [{"name": f"simulated-{number}", "targets": targets} for number in range(1, count + 1)]


@contextmanager
def simulated_services(lab: LabUnderTest) -> Iterator[Callable[[int], None]]:
    """What has so many simulated services scraped, and returns when every target is up; none afterwards."""
    host = lab.host(HOST)

    def scraped(count: int) -> None:
        variables = {"prometheus_external_targets": entries(count, host.address)}
        lab.play("--extra-vars", json.dumps(variables), *PLAY_PROMETHEUS)
        up = f'count(up{{job="external"}} == 1) == {count * len(PORTS)}'
        wait(lambda: lab.query(up), f"{count} simulated services scraped", 240, despite=(OSError,))

    host.write(f"{FOLDER}/metrics", read(lab, MODEL, "/metrics", NAMESPACE))
    host.write(f"{FOLDER}/server.py", SERVER)
    host.run(START)
    try:
        yield scraped
    finally:
        lab.play(*PLAY_PROMETHEUS)
        host.run(STOP)
