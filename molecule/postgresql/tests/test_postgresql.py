"""PostgreSQL as the services meet it: who gets through, what they may do, and what outlives its pod."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_cluster import Cluster, eventually

NAMESPACE = "crypto-trading"
POD = "postgresql-0"
# The password reaches psql by a file that it reads itself, from stdin: no argument holds it.
QUERY = """
umask 077; read -r PGPASSWORD; export PGPASSWORD
exec psql --host 127.0.0.1 --username "$0" --dbname tradewatch --no-align --tuples-only --quiet
"""
Query = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def secrets(lab_dir: Path) -> dict[str, str]:
    return dict(json.loads((lab_dir / "secrets.json").read_text()))


@pytest.fixture(scope="module")
def query(cluster: Cluster, secrets: dict[str, str]) -> Query:
    """SQL as a role, with its password or a given one."""
    passwords = {
        "tradewatch": secrets["postgresql_password"],
        "tradewatch_owner": secrets["postgresql_owner_password"],
        "tradewatch_exporter": secrets["postgresql_exporter_password"],
    }

    def call(sql: str, role: str = "tradewatch", password: str = "") -> subprocess.CompletedProcess[str]:
        stdin = f"{password or passwords[role]}\n{sql}\n"
        result: subprocess.CompletedProcess[str] = cluster.execute(NAMESPACE, POD, "sh", "-c", QUERY, role, stdin=stdin)
        return result

    return call


def answers(query: Query) -> bool:
    return query("SELECT 1").stdout.strip() == "1"


def test_the_schema_is_there_and_the_services_role_may_use_it(query: Query) -> None:
    eventually(lambda: answers(query), "PostgreSQL answers")
    assert query("SELECT count(*) FROM alembic_version").stdout.strip() == "1"
    assert query("SELECT state FROM trading_state").stdout.strip() == "ACTIVE"
    assert query("INSERT INTO audit_log (actor, action) VALUES ('molecule', 'test')").stderr == ""


@pytest.mark.parametrize("role", ["tradewatch", "tradewatch_owner", "tradewatch_exporter"])
def test_a_wrong_password_is_refused(query: Query, role: str) -> None:
    assert "password authentication failed" in query("SELECT 1", role, "wrong").stderr


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "DROP TABLE orders"]
)
def test_the_services_role_cannot_rewrite_the_past(query: Query, statement: str) -> None:
    assert "ERROR" in query(statement).stderr


def test_nobody_else_reaches_it(cluster: Cluster) -> None:
    address = cluster.get("service", "postgresql", "--namespace", NAMESPACE)["spec"]["clusterIP"]
    dns = cluster.get("service", "kube-dns", "--namespace", "kube-system")["spec"]["clusterIP"]
    # No policy holds back what a pod of the namespace default sends: it reaches other Services.
    cluster.probe("default", "stranger", "collectors")
    eventually(lambda: cluster.connects("default", "stranger", dns, 53), "the probe reaches the DNS", 30)
    for port in (5432, 9187):
        refused = f"a stranger is kept out of {port}"
        eventually(lambda: not cluster.connects("default", "stranger", address, port), refused, 30)  # noqa: B023
    # What the upgrade's label lets in, it lets in: the policy, not a dead port, keeps the stranger out.
    cluster.probe(NAMESPACE, "upgrade", "trading", {"app.kubernetes.io/name": "database-upgrade"})
    eventually(lambda: cluster.connects(NAMESPACE, "upgrade", address, 5432), "the upgrade reaches it", 30)


def test_prometheus_reads_its_figures(cluster: Cluster) -> None:
    annotations = cluster.get("service", "postgresql", "--namespace", NAMESPACE)["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    scrape = cluster.prometheus_probe()
    url = f"http://postgresql.{NAMESPACE}.svc:{annotations['prometheus.io/port']}{annotations['prometheus.io/path']}"
    found: dict[str, float] = {}

    def is_up() -> bool:
        found.clear()
        found.update(scrape(url))
        return found.get("pg_up") == 1 and bool(in_database("pg_stat_user_tables_n_dead_tup"))

    def in_database(name: str) -> list[float]:
        return [value for series, value in found.items() if series.startswith(f"{name}{{") and "tradewatch" in series]

    eventually(is_up, "the exporter reaches PostgreSQL", 60)
    for name in (
        "pg_stat_database_numbackends",
        "pg_locks_count",
        "pg_stat_database_xact_commit",
        "pg_database_size_bytes",
    ):
        assert in_database(name), name
    assert {"pg_replication_is_replica", "pg_wal_size_bytes", "pg_stat_checkpointer_num_timed_total"} <= found.keys()
    failed = [s for s, value in found.items() if s.startswith("pg_scrape_collector_success") and value != 1]
    assert not failed


def test_the_exporter_s_role_reads_statistics_and_nothing_else(query: Query) -> None:
    member = "SELECT string_agg(roleid::regrole::text, ',') FROM pg_auth_members WHERE member = current_user::regrole"
    assert query(member, "tradewatch_exporter").stdout.strip() == "pg_monitor"
    for statement in ("SELECT * FROM orders", "CREATE TABLE own (i int)", "ALTER SYSTEM SET work_mem = '1GB'"):
        assert "permission denied" in query(statement, "tradewatch_exporter").stderr, statement


def test_data_outlives_a_crash_and_the_pod(cluster: Cluster, query: Query) -> None:
    query("INSERT INTO audit_log (actor, action) VALUES ('molecule', 'before the crash')")
    # Every process of the container but the shell that asks.
    cluster.execute(NAMESPACE, POD, "sh", "-c", "kill -9 -1")
    eventually(lambda: answers(query), "it recovers from the crash", 120)
    before = cluster.ready_pod(NAMESPACE, "postgresql")["metadata"]["uid"]
    cluster.text("delete", "pod", POD, "--namespace", NAMESPACE, "--wait=true")
    assert cluster.ready_pod(NAMESPACE, "postgresql")["metadata"]["uid"] != before
    found = "SELECT count(*) > 0 FROM audit_log WHERE action = 'before the crash'"
    assert eventually(lambda: query(found).stdout.strip(), "PostgreSQL answers") == "t"


def test_it_runs_as_nobody_on_a_file_system_it_cannot_write(cluster: Cluster) -> None:
    assert cluster.execute(NAMESPACE, POD, "id", "-u").stdout.strip() == "10001"
    for folder in ("/", "/etc/postgresql", "/run/secrets/postgresql"):
        refused = cluster.execute(NAMESPACE, POD, "sh", "-c", f"echo > {folder}/written")
        assert "Read-only file system" in refused.stderr, folder


def test_passwords_stand_in_no_argument_environment_or_log(cluster: Cluster, secrets: dict[str, str]) -> None:
    seen = cluster.execute(NAMESPACE, POD, "sh", "-c", "cat /proc/1/cmdline /proc/1/environ").stdout
    seen += cluster.text("logs", POD, "--namespace", NAMESPACE, "--all-containers")
    seen += cluster.text("logs", "job/database-upgrade", "--namespace", NAMESPACE)
    seen += cluster.text("get", "pods", "--namespace", NAMESPACE, "-o", "yaml")
    assert "postgres" in seen
    for name in ("postgresql_password", "postgresql_owner_password", "postgresql_exporter_password"):
        assert secrets[name] not in seen, name


def test_a_changed_password_takes_effect(lab_dir: Path, query: Query, tmp_path: Path) -> None:
    def converge(password: str) -> None:
        variables = tmp_path / "variables.json"
        variables.write_text(json.dumps({"postgresql_password": password}))
        playbook = Path(__file__).parents[1] / "converge.yml"
        subprocess.run(["ansible-playbook", str(playbook), "-e", f"@{variables}"], check=True, capture_output=True)

    converge("changed-for-the-test")
    assert query("SELECT 1", "tradewatch", "changed-for-the-test").stdout.strip() == "1"
    assert "password authentication failed" in query("SELECT 1").stderr
    converge(json.loads((lab_dir / "secrets.json").read_text())["postgresql_password"])
    assert answers(query)
