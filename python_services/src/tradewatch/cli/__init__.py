"""The `tradewatch` command. Each part is imported by the command that needs it, so that every command starts fast."""

import argparse
import sys
from collections.abc import Callable, Sequence

import tradewatch
from tradewatch.cli import groups
from tradewatch.cli.services import SERVICES
from tradewatch.common import logging, service, settings

EXIT_BAD_CONFIGURATION = 2


class _VariablesHelp(argparse.ArgumentParser):
    """A parser whose help ends with the environment variables of a settings class, looked up when help is asked for."""

    settings_class: Callable[[], type[settings.CommonSettings]] | None = None

    def format_help(self) -> str:
        """The help, with the variables."""
        if self.settings_class is not None:
            self.formatter_class = argparse.RawDescriptionHelpFormatter
            self.epilog = f"environment variables:\n{settings.describe(self.settings_class())}"
        return super().format_help()


def _upgrade_settings() -> "type[settings.CommonSettings]":
    from tradewatch.store.schema import UpgradeSettings

    return UpgradeSettings


def _parser() -> argparse.ArgumentParser:
    parser = _VariablesHelp(prog="tradewatch", description="Run and look into the services of Tradewatch.")
    parser.add_argument("--version", action="version", version=f"tradewatch {tradewatch.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a service until SIGTERM",
        description="Run a service until SIGTERM or SIGINT. It is configured by environment variables only.",
    )
    services = run.add_subparsers(dest="service", required=True, metavar="SERVICE")
    for name, entry in SERVICES.items():
        added = services.add_parser(name, help=entry.summary, description=f"{name}: {entry.summary}.")
        added.settings_class = entry.settings_class
    database = commands.add_parser("database", help="look after the store's schema").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    upgrade = database.add_parser(
        "upgrade", help="bring the schema to this version, and set the password of the services' role"
    )
    upgrade.settings_class = _upgrade_settings
    groups.add(commands)
    commands.add_parser("metrics-doc", help="print docs/metrics.md, made from the metrics' definitions")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's entry.

    Returns the exit code: 1 for a failure, 2 for wrong usage or configuration, 3 for what was not found.
    """
    options = _parser().parse_args(arguments)
    if options.command in groups.MODULES:
        return groups.run(options)
    if options.command == "metrics-doc":
        from tradewatch import metrics_doc

        sys.stdout.write(metrics_doc.render())
        return service.EXIT_OK
    if options.command == "database":
        return _upgrade_database()
    return _run(options.service)


def _load(command_line: str, settings_class: type[settings.SettingsT]) -> settings.SettingsT | None:
    """The settings, or None after one line on stderr for each thing that is wrong with them."""
    try:
        return settings.load(settings_class)
    except settings.SettingsError as error:
        for line in error.lines:
            print(f"tradewatch {command_line}: {line}", file=sys.stderr)
        return None


def _upgrade_database() -> int:
    from tradewatch.store import command, schema

    loaded = _load("database upgrade", schema.UpgradeSettings)
    return EXIT_BAD_CONFIGURATION if loaded is None else command.upgrade(loaded)


def _run(name: str) -> int:
    entry = SERVICES[name]
    settings_class = entry.settings_class()
    loaded = _load(f"run {name}", settings_class)
    if loaded is None:
        return EXIT_BAD_CONFIGURATION
    logging.configure(name, loaded.log_level)
    log = logging.get_logger("cli")
    unknown = settings.unknown_variables(settings_class)
    if unknown:
        log.warning("variables that this service does not read", variables=unknown)
    log.info("starting", version=tradewatch.__version__)
    try:
        return service.run_to_exit_code(entry.main()(loaded))
    except OSError as error:
        log.critical("cannot start", error=error.strerror or type(error).__name__)
        return service.EXIT_FAILED
