"""When the certificates of HTTPS endpoints end, by asking each endpoint for the one that it shows."""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from datetime import datetime

from cryptography import x509

from tradewatch.common.logging import get_logger
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics

INTERVAL_SECONDS = 300.0
# While one of them does not answer: at an installation dashboard-report is there before some.
RETRY_SECONDS = 30.0
TIMEOUT_SECONDS = 10.0
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")
_log = get_logger("certificates")

Address = tuple[str, int]


def parse_endpoints(text: str) -> dict[str, Address]:
    """Turn `name=host:port,name=host:port` into a mapping of names to hosts and ports. Raises ValueError."""
    found: dict[str, Address] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, address = part.partition("=")
        match = _ADDRESS.fullmatch(address)
        if not _NAME.fullmatch(name) or match is None or not 0 < int(match["port"]) < 65536:
            raise ValueError(f"{part[:80]!r} is not NAME=HOST:PORT")
        if name in found:
            raise ValueError(f"the name {name} is there twice")
        found[name] = match["host"], int(match["port"])
    return found


async def ends_at(host: str, port: int) -> datetime:
    """When the certificate that is shown there ends. Raises OSError, TimeoutError or ValueError.

    Nothing is sent, so nothing is trusted: a certificate that has ended or is of somebody else is looked at, too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(TIMEOUT_SECONDS):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(shown or b"").not_valid_after_utc


class CertificateWatch:
    """Asks every endpoint again and again; what was last seen of one stays while it does not answer."""

    def __init__(
        self,
        endpoints: Mapping[str, Address],
        metrics: DashboardReportMetrics,
        interval_seconds: float = INTERVAL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._retry_seconds = retry_seconds

    async def run(self) -> None:
        """Ask until it is cancelled."""
        while True:
            answered = await asyncio.gather(*(self._ask(name, *address) for name, address in self._endpoints.items()))
            await asyncio.sleep(self._interval_seconds if all(answered) else self._retry_seconds)

    async def _ask(self, name: str, host: str, port: int) -> bool:
        try:
            end = await ends_at(host, port)
        except (OSError, TimeoutError, ValueError) as error:
            _log.warning("a certificate cannot be read", endpoint=name, error=type(error).__name__)
            return False
        self._metrics.certificate_ends[name].set(end.timestamp())
        self._metrics.certificate_checked[name].set(time.time())
        return True
