"""The commands that look into the running system or steer it: their options, and the module that each is in."""

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

MODULES = {
    "kill-switch": "tradewatch.cli.kill_switch",
    "positions": "tradewatch.cli.tables",
    "orders": "tradewatch.cli.tables",
    "decisions": "tradewatch.cli.tables",
    "trace": "tradewatch.cli.trace",
    "replay": "tradewatch.cli.replay",
    "report": "tradewatch.cli.report",
    "alerts": "tradewatch.cli.alerts",
}
MAX_ROWS = 10_000
MAX_SPEED = 1_000_000.0
MAX_NAME = 100
_STORE = "Reads the store that TRADEWATCH_DATABASE_URL and TRADEWATCH_DATABASE_PASSWORD_FILE name."
_CODES = "Exit codes: 0 done, 1 the store or a service failed, 2 wrong usage or configuration, 3 not found."


def run(options: argparse.Namespace) -> int:
    """Import the command's module, which only now costs its time, and run it. Returns the exit code."""
    code: int = importlib.import_module(MODULES[options.command]).run(options)
    return code


def add(commands: Any) -> None:
    """Add the commands to the parser's subcommands."""
    switch = commands.add_parser("kill-switch", help="stop all trading, or release it again", epilog=_CODES)
    actions = switch.add_subparsers(dest="action", required=True, metavar="ACTION")
    engage = actions.add_parser("engage", help="halt trading and cancel open orders", epilog=_CODES)
    release = actions.add_parser("release", help="back to ACTIVE; losses are measured anew from now", epilog=_CODES)
    status = actions.add_parser("status", help="the trading state, who set it and why", epilog=_CODES)
    for action in (engage, release):
        action.add_argument("--reason", required=True, help="why, for the audit")
        action.add_argument("--actor", help="who, for the audit (default: the user that runs this)")
    for action in (engage, release, status):
        action.add_argument("--url", help="risk-manager (default: TRADEWATCH_RISK_MANAGER_URL, http://localhost:8080)")
        action.add_argument("--token-file", help="the token's file (default: TRADEWATCH_KILL_SWITCH_TOKEN_FILE)")
    positions = commands.add_parser("positions", help="what is held", description=_STORE, epilog=_CODES)
    orders = commands.add_parser("orders", help="orders, newest first", description=_STORE, epilog=_CODES)
    decisions = commands.add_parser("decisions", help="decisions, newest first", description=_STORE, epilog=_CODES)
    alerts = commands.add_parser("alerts", help="what people were told of, and who looks after it", epilog=_CODES)
    dealings = alerts.add_subparsers(dest="action", required=True, metavar="ACTION")
    alerts_list = dealings.add_parser("list", help="alerts, newest first", description=_STORE, epilog=_CODES)
    ack = dealings.add_parser("ack", help="say who looks after an alert", description=_STORE, epilog=_CODES)
    ack.add_argument("fingerprint", metavar="FINGERPRINT", type=_fingerprint, help="as notifications and list show it")
    ack.add_argument("--by", required=True, type=_name, metavar="NAME", help="who")
    for listed in (orders, decisions, alerts_list):
        listed.add_argument("--open", action="store_true", help="only those that have not ended")
        listed.add_argument("--limit", type=_rows, default=20, help="at most so many rows (default: 20)")
    trace = commands.add_parser("trace", help="the whole story of one decision", description=_STORE, epilog=_CODES)
    trace.add_argument("id", metavar="ID", help="the decision's id, or a trace id")
    replay = commands.add_parser(
        "replay",
        help="feed recorded market data through the pipeline",
        description="Puts JSON lines of market data onto the bus that TRADEWATCH_VALKEY_URL and"
        " TRADEWATCH_VALKEY_PASSWORD_FILE name, with their times moved to now. For labs and tests.",
        epilog="Exit codes: 0 done, 1 a line was left out or the bus failed, 2 wrong usage or configuration.",
    )
    replay.add_argument("file", metavar="FILE", help="the recording, or - for standard input")
    replay.add_argument("--speed", type=_speed, default=1.0, help="times as fast as recorded (default: 1)")
    replay.add_argument("--force", action="store_true", help="also into a stream that a collector is writing")
    _add_report(commands)
    for command in (engage, release, status, positions, orders, decisions, trace, alerts_list):
        command.add_argument("--json", action="store_true", help="print JSON")


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write the dashboards into one HTML file",
        description="Asks Prometheus and Loki what the dashboards show, and writes one HTML file that needs neither.",
        epilog="Exit codes: 0 done, 1 something could not be asked or written, 2 wrong usage, 3 no such dashboard.",
    )
    report.add_argument("--output", required=True, type=Path, metavar="FILE", help="the file to write")
    report.add_argument("--dashboard", action="append", default=[], metavar="UID", help="only these (default: all)")
    report.add_argument(
        "--dashboards", type=Path, default=Path("files/dashboards"), metavar="DIR", help="default: files/dashboards"
    )
    report.add_argument(
        "--from", dest="start", default="6h", type=_span, metavar="SPAN", help="how far back, as 30m, 6h or 7d (6h)"
    )
    report.add_argument("--endpoints", type=Path, metavar="FILE", help="endpoints.json of the deployment")
    report.add_argument("--prometheus", metavar="URL", help="Prometheus (default: as --endpoints says)")
    report.add_argument("--loki", metavar="URL", help="Loki (default: as --endpoints says)")
    report.add_argument("--ca-file", metavar="FILE", help="certificates to trust (default: as --endpoints says)")
    report.add_argument("--username", metavar="NAME", help="user at Prometheus (default: as --endpoints says)")
    report.add_argument("--password-file", metavar="FILE", help="file that holds that user's password")


def _span(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,5}[smhdw]", text):
        raise argparse.ArgumentTypeError("must be a number and s, m, h, d or w, such as 6h")
    return f"now-{text}"


def _rows(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_ROWS):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_ROWS}")
    return int(text)


def _fingerprint(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{16}", text):
        raise argparse.ArgumentTypeError("must be 16 hexadecimal digits")
    return text


def _name(text: str) -> str:
    if not (text.strip() and len(text) <= MAX_NAME and text.isprintable()):
        raise argparse.ArgumentTypeError(f"must be a name of at most {MAX_NAME} printable characters")
    return text.strip()


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= MAX_SPEED:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most {MAX_SPEED:g}")
    return speed
