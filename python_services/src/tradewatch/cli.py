"""The `tradewatch` command."""

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import tradewatch
from tradewatch import metrics_doc
from tradewatch.collectors import market_data_collector
from tradewatch.common import logging, service, settings
from tradewatch.simulators.exchange import service as exchange_simulator

EXIT_BAD_CONFIGURATION = 2


@dataclass(frozen=True)
class _Runnable:
    """A service that `tradewatch run` knows."""

    summary: str
    settings_class: type[settings.CommonSettings]
    main: Callable[[Any], Coroutine[Any, Any, int]]


SERVICES: dict[str, _Runnable] = {
    market_data_collector.NAME: _Runnable(
        "bring one exchange's market data onto the bus",
        market_data_collector.MarketDataCollectorSettings,
        market_data_collector.main,
    ),
    exchange_simulator.NAME: _Runnable(
        "stand in for an exchange, with seeded prices and faults on request",
        exchange_simulator.ExchangeSimulatorSettings,
        exchange_simulator.main,
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tradewatch", description="Run and look into the services of Tradewatch.")
    parser.add_argument("--version", action="version", version=f"tradewatch {tradewatch.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a service until SIGTERM",
        description="Run a service until SIGTERM or SIGINT. It is configured by environment variables only.",
    )
    services = run.add_subparsers(dest="service", required=True, metavar="SERVICE")
    for name, runnable in SERVICES.items():
        services.add_parser(
            name,
            help=runnable.summary,
            description=f"{name}: {runnable.summary}.",
            epilog=f"environment variables:\n{settings.describe(runnable.settings_class)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    commands.add_parser("metrics-doc", help="print docs/metrics.md, made from the metrics' definitions")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's entry. Returns the exit code: 2 for wrong usage or configuration, 1 for a failure."""
    options = _parser().parse_args(arguments)
    if options.command == "metrics-doc":
        sys.stdout.write(metrics_doc.render())
        return service.EXIT_OK
    return _run(options.service)


def _run(name: str) -> int:
    runnable = SERVICES[name]
    try:
        loaded = settings.load(runnable.settings_class)
    except settings.SettingsError as error:
        for line in error.lines:
            print(f"tradewatch run {name}: {line}", file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    logging.configure(name, loaded.log_level)
    log = logging.get_logger("cli")
    unknown = settings.unknown_variables(runnable.settings_class)
    if unknown:
        log.warning("variables that this service does not read", variables=unknown)
    log.info("starting", version=tradewatch.__version__)
    try:
        return service.run_to_exit_code(runnable.main(loaded))
    except OSError as error:
        log.critical("cannot start", error=error.strerror or type(error).__name__)
        return service.EXIT_FAILED
