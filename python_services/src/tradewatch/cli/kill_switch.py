"""`tradewatch kill-switch engage|release|status`: asks risk-manager, which stores it."""

import getpass
import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
from pydantic import BeforeValidator, Field, SecretStr

from tradewatch.cli.reading import EXIT_BAD_CONFIGURATION, EXIT_FAILED, EXIT_OK, fail, load
from tradewatch.common.settings import CommonSettings, http_url

# The call that cancels open orders is part of the answer, so it is waited for.
ANSWER_SECONDS = 15.0


class RiskManagerAccess(CommonSettings):
    """How to reach risk-manager."""

    risk_manager_url: Annotated[str, BeforeValidator(http_url)] = Field(
        default="http://localhost:8080", description="risk-manager"
    )
    kill_switch_token: SecretStr | None = Field(default=None, description="file that holds the kill switch's token")


def run(options: Namespace) -> int:
    """The command. Returns the exit code: 1 also where the switch is engaged but orders could not be cancelled yet."""
    command = f"kill-switch {options.action}"
    given = {"RISK_MANAGER_URL": options.url, "KILL_SWITCH_TOKEN_FILE": options.token_file}
    with _environment({f"TRADEWATCH_{name}": value for name, value in given.items() if value is not None}):
        loaded = load(command, RiskManagerAccess)
    if loaded is None:
        return EXIT_BAD_CONFIGURATION
    if options.action != "status" and loaded.kill_switch_token is None:
        return fail(command, "TRADEWATCH_KILL_SWITCH_TOKEN_FILE: is required", EXIT_BAD_CONFIGURATION)
    try:
        answer = _call(options, loaded)
        body = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return fail(command, f"risk-manager at {loaded.risk_manager_url} does not answer: {type(error).__name__}")
    if not answer.is_success:
        return fail(command, f"risk-manager refused ({answer.status_code}): {_message(body)}")
    return _show(options, body)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """An option takes the place of its variable while settings are read, and is checked as it is."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _call(options: Namespace, access: RiskManagerAccess) -> httpx.Response:
    base = access.risk_manager_url.rstrip("/")
    with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
        if options.action == "status" or access.kill_switch_token is None:
            return client.get(f"{base}/v1/state")
        body = {"action": options.action, "reason": options.reason, "actor": options.actor or _person()}
        headers = {"Authorization": f"Bearer {access.kill_switch_token.get_secret_value()}"}
        return client.post(f"{base}/v1/kill-switch", json=body, headers=headers)


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return " ".join(str(error.get("message") if isinstance(error, dict) else "no reason given").split())


def _show(options: Namespace, body: dict[str, Any]) -> int:
    outcome = str(body.get("cancel_all", ""))
    if options.json:
        print(json.dumps(body, indent=2))
    else:
        engaged = "engaged" if body.get("kill_switch") else "released"
        who = f"{body.get('reason')} ({body.get('actor')}, {body.get('changed')})"
        line = f"{body.get('state')}, kill switch {engaged}; {who}"
        print(f"{line}; cancel-all: {outcome}" if outcome else line)
    return EXIT_FAILED if outcome.startswith("failed") else EXIT_OK
