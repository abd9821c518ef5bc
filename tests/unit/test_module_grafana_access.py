"""The module grafana_access against a stand-in that answers as Grafana's documented API does."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from plugins.modules import grafana_access
from plugins.modules.grafana_access import Access, Grafana, GrafanaError

PASSWORD = "correct-horse"
TEAMS = [
    {"name": "trading", "home_dashboard": "crypto-trading-engine"},
    {"name": "devops", "home_dashboard": "unified-system"},
]
FOLDERS = [
    {"uid": "trading", "title": "Trading", "permissions": {"trading": "edit", "devops": "view"}},
    {"uid": "devops", "title": "DevOps", "permissions": {"devops": "admin"}},
]


class Standin(http.server.ThreadingHTTPServer):
    """What of Grafana the module uses. A new folder may be seen by everyone, as in Grafana."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.teams: dict[int, str] = {7: "trading-desk"}
        self.folders: dict[str, dict[str, Any]] = {}
        self.permissions: dict[str, list[dict[str, Any]]] = {}
        self.preferences: dict[int, dict[str, Any]] = {}
        self.changes: list[str] = []
        self.busy = 0
        # Asked so often, a dashboard is not there: Grafana reads its files while it answers already.
        self.reading = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Standin

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_one(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        expected = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        if self.server.busy:
            self.server.busy -= 1
            return self.answer(503, {"message": "starting"})
        if self.headers["Authorization"] != expected:
            return self.answer(401, {"message": "Invalid username or password"})
        if self.command != "GET":
            self.server.changes.append(f"{self.command} {self.path}")
        status, found = self.respond(urlsplit(self.path).path.strip("/").split("/"), body)
        return self.answer(status, found)

    do_GET = do_POST = do_PUT = handle_one

    def respond(self, path: list[str], body: Any) -> tuple[int, Any]:
        server, method = self.server, self.command
        match method, path[1:]:
            case "GET", ["dashboards", "uid", uid]:
                server.reading -= 1
                return (404, {"message": "Dashboard not found"}) if server.reading >= 0 else (200, {"meta": {}})
            case "GET", ["teams", "search"]:
                (name,) = parse_qs(urlsplit(self.path).query)["name"]
                teams = [{"id": key, "name": value} for key, value in server.teams.items() if value == name]
                return 200, {"totalCount": len(teams), "teams": teams, "page": 1, "perPage": 1000}
            case "POST", ["teams"]:
                number = max(server.teams) + 1
                server.teams[number] = body["name"]
                return 200, {"message": "Team created", "teamId": number}
            case "GET", ["teams", number, "preferences"]:
                return 200, server.preferences.get(int(number), {"theme": "dark", "homeDashboardUID": ""})
            case "PUT", ["teams", number, "preferences"]:
                if server.reading > 0:
                    return 404, {"message": "Dashboard not found"}
                server.preferences[int(number)] = body
                return 200, {"message": "Preferences updated"}
            case "POST", ["folders"]:
                server.folders[body["uid"]] = {**body, "version": 1}
                server.permissions[body["uid"]] = [
                    {"role": "Editor", "permission": 2, "teamId": 0, "userId": 0},
                    {"role": "Viewer", "permission": 1, "teamId": 0, "userId": 0},
                ]
                return 200, server.folders[body["uid"]]
            case _, ["folders", uid, *rest] if uid in server.folders:
                if rest and method == "GET":
                    inherited = {"userId": 1, "permission": 4, "inherited": True}
                    return 200, [*server.permissions[uid], inherited]
                if rest:
                    server.permissions[uid] = body["items"]
                    return 200, {"message": "Folder permissions updated"}
                if method == "PUT":
                    if body["version"] != server.folders[uid]["version"]:
                        return 412, {"message": "The folder has been changed by someone else"}
                    server.folders[uid].update(title=body["title"], version=body["version"] + 1)
                return 200, server.folders[uid]
        return 404, {"message": "not found"}


@pytest.fixture
def grafana() -> Iterator[Standin]:
    with Standin() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def reconcile(
    grafana: Standin,
    *,
    check_mode: bool = False,
    password: str = PASSWORD,
    folders: list[dict[str, Any]] = FOLDERS,
    timeout_seconds: float = 5,
) -> list[str]:
    client = Grafana(grafana.url, "admin", password, ssl.create_default_context(), timeout_seconds)
    access = Access(client, check_mode)
    access.reconcile(TEAMS, folders)
    return access.changes


def test_everything_is_made_once_and_only_once(grafana: Standin) -> None:
    assert reconcile(grafana) == [
        "team trading made",
        "team devops made",
        "folder trading made",
        "permissions of folder trading set",
        "folder devops made",
        "permissions of folder devops set",
        "home dashboard of team trading set",
        "home dashboard of team devops set",
    ]
    assert grafana.teams == {7: "trading-desk", 8: "trading", 9: "devops"}
    assert grafana.permissions["trading"] == [{"teamId": 8, "permission": 2}, {"teamId": 9, "permission": 1}]
    assert grafana.permissions["devops"] == [{"teamId": 9, "permission": 4}], "everyone else is shut out"
    assert grafana.preferences[8] == {"theme": "dark", "homeDashboardUID": "crypto-trading-engine"}
    grafana.changes.clear()
    assert reconcile(grafana) == []
    assert grafana.changes == []


def test_check_mode_says_the_same_and_changes_nothing(grafana: Standin) -> None:
    assert len(reconcile(grafana, check_mode=True)) == 8
    assert grafana.changes == []
    reconcile(grafana)
    assert reconcile(grafana, check_mode=True) == []


def test_what_somebody_changed_by_hand_is_put_right(grafana: Standin) -> None:
    reconcile(grafana)
    grafana.folders["devops"]["title"] = "Mine"
    grafana.permissions["trading"].append({"role": "Viewer", "permission": 1})
    grafana.preferences[9]["homeDashboardUID"] = "another"
    assert reconcile(grafana) == [
        "permissions of folder trading set",
        "folder devops renamed",
        "home dashboard of team devops set",
    ]
    assert grafana.folders["devops"]["title"] == "DevOps"
    assert reconcile(grafana) == []


def test_it_waits_while_grafana_starts(grafana: Standin) -> None:
    grafana.busy = 1
    assert reconcile(grafana)


def test_it_waits_for_the_dashboards_that_grafana_still_reads(grafana: Standin) -> None:
    grafana.reading = 1
    assert "home dashboard of team trading set" in reconcile(grafana)


def test_a_home_dashboard_that_there_is_not_is_named_and_nothing_is_changed(grafana: Standin) -> None:
    grafana.reading = 99
    with pytest.raises(GrafanaError, match=r"has no dashboard crypto-trading-engine$"):
        reconcile(grafana, timeout_seconds=0)
    assert grafana.changes == []


def test_a_wrong_password_is_one_line_that_does_not_hold_it(grafana: Standin) -> None:
    with pytest.raises(GrafanaError) as refused:
        reconcile(grafana, password="guess")
    assert "HTTP 401: Invalid username or password" in str(refused.value)
    assert "guess" not in str(refused.value)


def test_permissions_that_name_no_team_or_level_are_refused_before_anything_is_asked() -> None:
    folders = [{"uid": "x", "title": "X", "permissions": {"tradng": "edit", "devops": "owner"}}]
    assert grafana_access.problems(TEAMS, folders) == [
        "folder x: unknown team tradng; known: devops, trading",
        "folder x: devops may be given view, edit, admin, not owner",
    ]
