#!/usr/bin/python
"""Teams, folders, who may do what in them, and each team's home dashboard, in a running Grafana."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: grafana_access
short_description: Teams, folders and permissions of a running Grafana
description:
  - Through Grafana's HTTP API, which is asked first and told only what differs. The API is described at
    U(https://grafana.com/docs/grafana/v12.3/developers/http_api/).
  - The permissions of a listed folder are exactly those given; teams and folders that are not listed are left alone.
options:
  url:
    description: Grafana, such as C(https://192.0.2.4:30030).
    type: str
    required: true
  username:
    description: An administrator.
    type: str
    default: admin
  password_file:
    description: The file that holds the administrator's password.
    type: path
    required: true
  ca_file:
    description: The certificate authority of Grafana's certificate.
    type: path
    required: true
  teams:
    description: The teams.
    type: list
    elements: dict
    required: true
    options:
      name: {description: Its name., type: str, required: true}
      home_dashboard: {description: Uid of the dashboard that its members see first., type: str, required: true}
  folders:
    description: The folders.
    type: list
    elements: dict
    required: true
    options:
      uid: {description: Its uid., type: str, required: true}
      title: {description: Its title., type: str, required: true}
      permissions:
        description: Team to C(view), C(edit) or C(admin). Nobody else but administrators may see the folder.
        type: dict
        required: true
  timeout_seconds:
    description: How long Grafana may take to be reached and to have read the teams' home dashboards.
    type: int
    default: 60
author: Tradewatch
"""

EXAMPLES = r"""
- name: Give the trading team its folder
  grafana_access:
    url: https://192.0.2.4:30030
    password_file: "{{ state_dir }}/grafana.password"
    ca_file: "{{ state_dir }}/ca.crt"
    teams: [{name: trading, home_dashboard: crypto-trading-engine}]
    folders: [{uid: trading, title: Trading, permissions: {trading: edit}}]
"""

RETURN = r"""
changes: {description: A line for each difference., type: list, returned: success}
"""

PERMISSIONS = {"view": 1, "edit": 2, "admin": 4}
MAX_ANSWER_BYTES = 4 * 1024 * 1024
REQUEST_SECONDS = 10.0

Json = dict[str, Any]


class GrafanaError(Exception):
    """Grafana did not do what it was asked; the text is one line without credentials."""


class Grafana:
    """Grafana's HTTP API, by basic auth over TLS of one authority.

    Args:
        timeout_seconds: how long to try again where it cannot be reached or answers 502 or 503, as while it starts, and
            to wait for dashboards.
    """

    def __init__(self, url: str, username: str, password: str, context: ssl.SSLContext, timeout_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._authorization = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        # No proxy of the environment: the password goes to this address only.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self._deadline = time.monotonic() + timeout_seconds

    def get(self, path: str) -> Any:
        """The answer, or None where there is no such thing (404)."""
        return self._ask("GET", path, None)

    def send(self, method: str, path: str, body: Json) -> Any:
        """The answer to a change; None where what is changed is not there."""
        return self._ask(method, path, body)

    def wait_for_dashboard(self, uid: str) -> None:
        """Return when there is the dashboard: Grafana answers before it has read those of its files.

        Raises:
            GrafanaError: there is none within the time.
        """
        while self.get(f"/api/dashboards/uid/{urllib.parse.quote(uid)}") is None:
            if time.monotonic() > self._deadline:
                raise GrafanaError(f"{self._url} has no dashboard {uid}")
            time.sleep(1)

    def _ask(self, method: str, path: str, body: Json | None) -> Any:
        while True:
            try:
                return self._ask_once(method, path, body)
            except (urllib.error.URLError, OSError) as error:
                reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else str(error)
                certificate = isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)
                if certificate or time.monotonic() > self._deadline:
                    raise GrafanaError(f"{method} {self._url}{path}: {reason}") from None
            time.sleep(1)

    def _ask_once(self, method: str, path: str, body: Json | None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={
                "Authorization": self._authorization,
                "Content-Type": "application/json",
                "Accept": "application/json",
            },
        )
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return json.loads(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code in (502, 503):
                raise
            raise GrafanaError(f"{method} {self._url}{path}: HTTP {error.code}: {_message(error)}") from None
        except ValueError:
            raise GrafanaError(f"{method} {self._url}{path}: the answer is no JSON") from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(MAX_ANSWER_BYTES))["message"])[:200]
    except (ValueError, KeyError, TypeError, OSError):
        return "no message"


class Access:
    """Brings teams, folders and permissions to what is wanted; in check mode only says what it would change."""

    def __init__(self, grafana: Grafana, check_mode: bool) -> None:
        self._grafana = grafana
        self._check_mode = check_mode
        self.changes: list[str] = []

    def reconcile(self, teams: Sequence[Json], folders: Sequence[Json]) -> None:
        """Teams first, as permissions name them. The home dashboards must be there: with them come their folders.

        Raises:
            GrafanaError: Grafana refuses, cannot be reached, or has not a team's home dashboard.
        """
        if not self._check_mode:
            for uid in dict.fromkeys(team["home_dashboard"] for team in teams):
                self._grafana.wait_for_dashboard(uid)
        ids = {team["name"]: self._team(team["name"]) for team in teams}
        for folder in folders:
            self._folder(folder, ids)
        for team in teams:
            self._home_dashboard(team["name"], ids[team["name"]], team["home_dashboard"])

    def _team(self, name: str) -> int | None:
        """The team's id; None where it is only in check mode that it is not made."""
        found = self._grafana.get(f"/api/teams/search?name={urllib.parse.quote(name)}") or {}
        for team in found.get("teams", []):
            if team["name"] == name:
                return int(team["id"])
        made = self._change(f"team {name} made", "POST", "/api/teams", {"name": name})
        return int(made["teamId"]) if made else None

    def _folder(self, folder: Json, ids: Mapping[str, int | None]) -> None:
        path = f"/api/folders/{urllib.parse.quote(folder['uid'])}"
        found = self._grafana.get(path)
        if found is None:
            body = {"uid": folder["uid"], "title": folder["title"]}
            self._change(f"folder {folder['uid']} made", "POST", "/api/folders", body)
        elif found["title"] != folder["title"]:
            body = {"title": folder["title"], "version": found["version"]}
            self._change(f"folder {folder['uid']} renamed", "PUT", path, body)
        wanted = {(ids[team], PERMISSIONS[level]) for team, level in folder["permissions"].items()}
        entries = (self._grafana.get(f"{path}/permissions") or []) if found is not None or not self._check_mode else []
        # Inherited entries, such as the administrators', are not the folder's own.
        given = {_grant(entry) for entry in entries if not entry.get("inherited")}
        if given != {("team", *grant) for grant in wanted}:
            items = [
                {"teamId": team, "permission": level}
                for team, level in sorted(wanted, key=lambda grant: (grant[0] or 0, grant[1]))
            ]
            self._change(f"permissions of folder {folder['uid']} set", "POST", f"{path}/permissions", {"items": items})

    def _home_dashboard(self, name: str, team: int | None, dashboard: str) -> None:
        path = f"/api/teams/{team}/preferences"
        found = (self._grafana.get(path) or {}) if team is not None else {}
        if found.get("homeDashboardUID") != dashboard:
            # PUT replaces all of them.
            kept = {key: found[key] for key in ("theme", "timezone", "weekStart") if key in found}
            body = {**kept, "homeDashboardUID": dashboard}
            self._change(f"home dashboard of team {name} set", "PUT", path, body)

    def _change(self, what: str, method: str, path: str, body: Json) -> Any:
        self.changes.append(what)
        if self._check_mode:
            return None
        answer = self._grafana.send(method, path, body)
        if answer is None:
            raise GrafanaError(f"{method} {path}: HTTP 404")
        return answer


def _grant(entry: Json) -> tuple[str, Any, int]:
    if entry.get("teamId"):
        return "team", int(entry["teamId"]), int(entry["permission"])
    if entry.get("role"):
        return "role", entry["role"], int(entry["permission"])
    return "user", entry.get("userId"), int(entry["permission"])


def problems(teams: Sequence[Json], folders: Sequence[Json]) -> list[str]:
    """What is wrong with the wanted state by itself."""
    names = {team["name"] for team in teams}
    found = []
    for folder in folders:
        for team, level in folder["permissions"].items():
            if team not in names:
                found.append(f"folder {folder['uid']}: unknown team {team}; known: {', '.join(sorted(names))}")
            if level not in PERMISSIONS:
                found.append(f"folder {folder['uid']}: {team} may be given {', '.join(PERMISSIONS)}, not {level}")
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "username": {"type": "str", "default": "admin"},
            "password_file": {"type": "path", "required": True, "no_log": False},
            "ca_file": {"type": "path", "required": True},
            "teams": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "home_dashboard": {"type": "str", "required": True},
                },
            },
            "folders": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "uid": {"type": "str", "required": True},
                    "title": {"type": "str", "required": True},
                    "permissions": {"type": "dict", "required": True},
                },
            },
            "timeout_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    wrong = problems(given["teams"], given["folders"])
    if wrong or not given["url"].startswith("https://"):
        module.fail_json(msg="; ".join(wrong) or f"{given['url']} is not an https:// address")
    try:
        password = Path(given["password_file"]).read_text().rstrip("\n")
        context = ssl.create_default_context(cafile=given["ca_file"])
        grafana = Grafana(given["url"], given["username"], password, context, given["timeout_seconds"])
        access = Access(grafana, module.check_mode)
        access.reconcile(given["teams"], given["folders"])
    except (OSError, GrafanaError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(access.changes), changes=access.changes)


if __name__ == "__main__":
    main()
