"""``python -m lab``: the lab's commands."""

from __future__ import annotations

import argparse
import json
import sys

from lab import environment, hosts, secrets, up
from lab.bundle import parts
from lab.steps import LabError, together


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Four systemd hosts on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("up", help="hosts, bundle, site.yml, verify.yml, table (make lab)")
    command.add_argument("--no-verify", action="store_true", help="leave verify.yml out")
    commands.add_parser("down", help="remove every trace but the cache (make lab-down)")
    command = commands.add_parser("hosts", help="boot hosts only, without a cluster")
    command.add_argument("names", nargs="+")
    command = commands.add_parser("remove-host", help="remove one host and its volumes")
    command.add_argument("name")
    command = commands.add_parser("bundle", help="make parts of the bundle; prints where each is as JSON")
    command.add_argument("parts", nargs="*", metavar="NAME")
    command.add_argument("--list", action="store_true", help="print the parts' names")
    command = commands.add_parser("place", help="make a part and place it in the artifact cache (make image)")
    command.add_argument("part", choices=sorted(parts.PARTS), metavar="NAME")
    return parser


def main() -> int:
    """Run one command; a failure is its message and exit code 1."""
    arguments = _parser().parse_args()
    environment.enter()
    try:
        match arguments.command:
            case "up":
                up.up(verify=not arguments.no_verify)
            case "down":
                up.down()
            case "hosts":
                with up.lock():
                    secrets.ensure()
                    hosts.up(arguments.names)
            case "remove-host":
                with up.lock():
                    hosts.remove_host(arguments.name)
            case "bundle" if arguments.list or not arguments.parts:
                print("\n".join(sorted(parts.PARTS)))
            case "bundle":
                unknown = sorted(set(arguments.parts) - set(parts.PARTS))
                if unknown:
                    raise LabError(f"no bundle part {', '.join(unknown)} (python -m lab bundle --list)")
                wanted = arguments.parts
                made, *_ = together(lambda: list(map(parts.describe, wanted)), *parts.ahead(wanted))
                print("\n".join(json.dumps(part) for part in made))
                return _complain(*(part["error"] for part in made if "error" in part))
            case "place":
                print(parts.place(arguments.part))
    except LabError as error:
        return _complain(str(error))
    return 0


def _complain(*errors: str) -> int:
    """Say what failed; the exit code."""
    for error in errors:
        print(f"lab: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
