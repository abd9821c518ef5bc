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
from tradewatch.store import command, schema

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
    database = commands.add_parser("database", help="look after the store's schema").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    database.add_parser(
        "upgrade",
        help="bring the schema to this version, and set the password of the services' role",
        epilog=f"environment variables:\n{settings.describe(schema.UpgradeSettings)}",
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
    if options.command == "database":
        loaded = _load("database upgrade", schema.UpgradeSettings)
        return EXIT_BAD_CONFIGURATION if loaded is None else command.upgrade(loaded)
    return _run(options.service)


def _load(command_line: str, settings_class: type[settings.SettingsT]) -> settings.SettingsT | None:
    """The settings, or None after one line on stderr for each thing that is wrong with them."""
    try:
        return settings.load(settings_class)
    except settings.SettingsError as error:
        for line in error.lines:
            print(f"tradewatch {command_line}: {line}", file=sys.stderr)
        return None


def _run(name: str) -> int:
    runnable = SERVICES[name]
    loaded = _load(f"run {name}", runnable.settings_class)
    if loaded is None:
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
