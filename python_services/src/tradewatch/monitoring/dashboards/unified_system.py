"""The dashboard Unified System: collectors, trading, hosts and monitoring on one page, and the way into each."""

from grafana_foundation_sdk.models import dashboard as models

from tradewatch.monitoring.dashboards import shared
from tradewatch.monitoring.dashboards.dependencies import LAGS, RATES
from tradewatch.monitoring.dashboards.parts import (
    AVAILABLE,
    BLUE,
    GREEN,
    ORANGE,
    OWN_JOB,
    RED,
    TABLE_TO_SERVICE,
    TRADING_ENGINE,
    UNIFIED_SYSTEM,
    UP_OR_DOWN,
    YELLOW,
    ZERO_IS_GOOD,
    Column,
    Look,
    Query,
    Row,
    Texts,
    assemble,
    logs_panel,
    own,
    quantile,
    rate,
    stat_panel,
    table_panel,
    timeline_panel,
    timeseries_panel,
)

_FEEDS = ('exchange=~"$exchange"', 'product_id=~"$product"')
_EXCHANGE = 'exchange=~"$exchange"'
_PRODUCT = 'product_id=~"$product"'
_SERVICES = 'namespace=~"$namespace",service=~"$service"'
_NAMESPACES = 'namespace=~"$namespace"'
_FIRING = f'ALERTS{{alertstate="firing",{shared.NOT_WATCHDOG}'
_RUNBOOK = (("Runbook", "${runbooks_url}/${__data.fields.alertname}.md"),)
_SHARE_OF_LIMIT: tuple[tuple[float | None, str], ...] = ((None, GREEN), (0.8, YELLOW), (0.95, RED))


_SEVERITIES: Texts = {"critical": ("critical", RED), "warning": ("warning", YELLOW), "info": ("info", BLUE)}
_STATES: Texts = {"firing": ("firing", RED), "pending": ("pending", YELLOW)}


def build() -> models.Dashboard:
    """The whole dashboard."""
    rows = (_health(), _collection(), _trading(), _infrastructure(), _alerts(), _logs())
    return assemble(
        UNIFIED_SYSTEM,
        "Unified System",
        "Everything on one page, from the exchanges to the fills and what it runs on. Start here at night.",
        rows,
        shared.variables(None),
        shared.annotations("$namespace"),
        shared.links(TRADING_ENGINE, "Crypto Trading Engine"),
    )


def _health() -> Row:
    ready = 'kube_node_status_condition{condition="Ready",status="true"}'
    replicas = f"count by (namespace, service) (up{{{OWN_JOB},{_SERVICES}}})"
    available = f"{AVAILABLE}{{{_SERVICES}}}"
    memory = f"sum by (namespace, service) (process_resident_memory_bytes{{{OWN_JOB},{_SERVICES}}})"
    age = f"time() - max by (namespace, service) (process_start_time_seconds{{{OWN_JOB},{_SERVICES}}})"
    return Row(
        "Cross-System Health",
        (
            stat_panel(
                "Alerts firing",
                "Firing alerts by severity. The row Alerts & Anomalies lists them with their runbooks.",
                [
                    Query(f'count({_FIRING},severity="critical"}}) or vector(0)', "critical", instant=True),
                    Query(f'count({_FIRING},severity="warning"}}) or vector(0)', "warning", instant=True),
                ],
                Look(steps=ZERO_IS_GOOD),
            ),
            stat_panel(
                "Services down",
                "Services that do not answer or have no ready replica, in every namespace. The timeline says which.",
                [Query(f"count({AVAILABLE} == 0) or vector(0)", instant=True)],
                Look(steps=ZERO_IS_GOOD),
            ),
            stat_panel(
                "Nodes not ready",
                "Nodes that Kubernetes holds for not Ready: what runs there stops or moves.",
                [Query(f"count(kube_node_info) - sum({ready})", instant=True)],
                Look(steps=ZERO_IS_GOOD),
            ),
            stat_panel(
                "Oldest market data",
                "Age of the newest event of the exchange and product that is furthest behind. Above a minute the"
                " engine no longer trades on it.",
                [Query(f"max({own('market_data_age_seconds', *_FEEDS)})", instant=True)],
                Look("s", steps=((None, GREEN), (10, YELLOW), (60, RED)), decimals=1),
            ),
            shared.kill_switch(),
            stat_panel(
                "Targets down",
                "Targets of every kind that Prometheus does not reach: what it does not reach, no alert sees.",
                [Query("count(up == 0) or vector(0)", instant=True)],
                Look(steps=ZERO_IS_GOOD),
            ),
            shared.availability("$namespace"),
            table_panel(
                "Services",
                "A row a service: whether it answers and has a ready replica, replicas, memory of all of them, time"
                " since the newest started. Click a name for the service alone or its logs.",
                [available, replicas, memory, age],
                (
                    Column("namespace", "namespace"),
                    Column("service", "service", Look(links=TABLE_TO_SERVICE)),
                    Column("Value #A", "available", Look(texts=UP_OR_DOWN, steps=((None, RED), (1, GREEN)))),
                    Column("Value #B", "replicas", Look(decimals=0)),
                    Column("Value #C", "memory", Look("bytes")),
                    Column("Value #D", "running for", Look("s")),
                ),
                sort="available",
            ),
            table_panel(
                "Dependencies: who feeds whom, rate and lag",
                "An edge of the data's way a row: events or calls a second, and how late. Late is the age of the newest"
                " event at an exchange or a feed, what a reader of the bus has not read yet, and the mean time of a"
                " call; empty where there was none.",
                [RATES, LAGS],
                (
                    Column("from", "from"),
                    Column("to", "to"),
                    Column("Value #A", "per second", Look("cps", decimals=2)),
                    Column(
                        "Value #B",
                        "late",
                        Look("s", steps=((None, GREEN), (10, YELLOW), (60, RED)), decimals=3),
                    ),
                ),
                width=24,
                height=12,
                sort="late",
                descending=True,
            ),
        ),
    )


def _collection() -> Row:
    by_feed = "{{exchange}} {{product_id}}"
    errors = f"sum by (exchange, reason) ({rate('collector_errors_total', _EXCHANGE)}) > 0"
    reconnects = (
        f"sum by (exchange, reason) (increase({own('websocket_reconnects_total', _EXCHANGE)}[$__rate_interval]))"
    )
    return Row(
        "Data Collection",
        (
            timeline_panel(
                "Feed freshness",
                "A band an exchange and product: red while its newest event is older than health-monitor's limit.",
                [Query(f"min by (exchange, product_id) ({own('market_data_fresh', *_FEEDS)})", by_feed)],
                Look(texts={"0": ("stale", RED), "1": ("fresh", GREEN)}, steps=((None, RED), (1, GREEN))),
            ),
            timeseries_panel(
                "Market data events per second",
                "Market data events a second that were accepted, by exchange and product.",
                [
                    Query(
                        f"sum by (exchange, product_id) ({rate('market_data_messages_total', *_FEEDS)})",
                        by_feed,
                        exemplars=True,
                    )
                ],
                Look("cps", minimum=0),
                width=12,
            ),
            timeseries_panel(
                "Market data age",
                "Age of the newest event on the bus by the exchange's time.",
                [Query(f"max by (exchange, product_id) ({own('market_data_age_seconds', *_FEEDS)})", by_feed)],
                Look("s", minimum=0, steps=((None, GREEN), (10, YELLOW), (60, RED))),
            ),
            timeseries_panel(
                "Events dropped by reason",
                "Events or frames a second that came from an exchange and were not forwarded, by reason.",
                [Query(errors, "{{exchange}} {{reason}}")],
                Look("cps", minimum=0),
                stacked=True,
                calm="everything was accepted; the simulator's fault `malformed` fills it.",
            ),
            timeseries_panel(
                "Reconnects and sequence gaps",
                "Connections given up and messages missing, by reason; each is repaired from a new snapshot and REST.",
                [
                    Query(f"{reconnects} > 0", "{{exchange}} {{reason}}"),
                    Query(
                        "sum by (exchange) (increase("
                        f"{own('market_data_sequence_gaps_total', _EXCHANGE)}[$__rate_interval])) > 0",
                        "{{exchange}} gaps",
                    ),
                ],
                Look(minimum=0),
                calm="every connection held; the simulator's fault `sequence_gap` fills it.",
            ),
            timeseries_panel(
                "Bus reader lag",
                "Seconds by which each reader is behind the newest entry of the stream that it is furthest behind on.",
                [Query(f"max by (service) ({own('stream_reader_lag_seconds')})", "{{service}}")],
                Look("s", minimum=0, steps=((None, GREEN), (1, YELLOW), (10, RED))),
            ),
            timeseries_panel(
                "Bus write backlog and losses",
                "Entries that wait in memory for Valkey, and entries given up a second: any of those is lost data.",
                [
                    Query(f"sum by (service) ({own('stream_buffer_entries')})", "{{service}} waiting"),
                    Query(f"sum by (service) ({rate('stream_dropped_total')})", "{{service}} lost a second"),
                ],
                Look(minimum=0),
            ),
            timeseries_panel(
                "Candle delay (p99)",
                "p99 of the time from a candle's end to its being on the bus, by length of the candle.",
                [Query(quantile(0.99, "candle_close_delay_seconds", by="interval"), "{{interval}} s")],
                Look("s", minimum=0, steps=((None, GREEN), (5, YELLOW))),
            ),
            timeseries_panel(
                "News sentiment",
                "Sentiment of each asset, -1 to 1, as the engine reads it.",
                [Query(f"max by (asset) ({own('sentiment_score')})", "{{asset}}")],
                Look(minimum=-1, maximum=1, decimals=2),
            ),
            timeseries_panel(
                "Price against its hourly mean",
                "Mid price over all exchanges, against its mean of the hour before.",
                [
                    Query(
                        f"max by (product_id) ({own('market_data_mid_price', _PRODUCT)})"
                        f" / max by (product_id) (avg_over_time({own('market_data_mid_price', _PRODUCT)}[1h])) - 1",
                        "{{product_id}}",
                    )
                ],
                Look("percentunit", decimals=2),
            ),
        ),
    )


def _trading() -> Row:
    api = "exchange_api_request_duration_seconds"
    return Row(
        "Trading Engine",
        (
            timeseries_panel(
                "Signals and decisions per minute",
                "Signals and ended decisions a minute, by outcome. Crypto Trading Engine (link above) has the rest.",
                [
                    Query(f"60 * sum({rate('trading_signals_total', _PRODUCT)})", "signals"),
                    Query(f"60 * sum by (outcome) ({rate('pipeline_decisions_total')})", "{{outcome}}", exemplars=True),
                ],
                Look(minimum=0),
            ),
            shared.end_to_end(),
            timeseries_panel(
                "Exposure and drawdown",
                "Exposure over equity, fall of the equity from its peak, and the largest share of a limit in use.",
                [
                    Query(f"max({own('portfolio_exposure_ratio')})", "exposure"),
                    Query(f"max({own('portfolio_drawdown_ratio')})", "drawdown"),
                    Query(f"max({own('risk_score', _PRODUCT)})", "of a limit"),
                ],
                Look("percentunit", minimum=0),
            ),
            timeseries_panel(
                "Exchange API latency (p95) by service",
                "p95 of requests to each exchange, by service and endpoint; `websocket` is the handshake.",
                [Query(quantile(0.95, api, _EXCHANGE, by="exchange, service, endpoint"), "{{exchange}} {{endpoint}}")],
                Look("s", minimum=0, steps=((None, GREEN), (1, YELLOW), (5, RED))),
            ),
            timeseries_panel(
                "LLM validations and errors per minute",
                "Validations and errors a minute; an error denies the signal.",
                [
                    Query(f"60 * sum by (decision) ({rate('llm_validations_total')})", "{{decision}}", exemplars=True),
                    Query(f"60 * sum({rate('llm_errors_total')})", "errors"),
                ],
                Look(minimum=0),
            ),
            timeseries_panel(
                "Orders per minute by status",
                "Orders a minute that ended, by status, and orders of unknown outcome.",
                [
                    Query(f"60 * sum by (status) ({rate('trade_executions_total')})", "{{status}}", exemplars=True),
                    Query(f"sum({own('orders_unknown_outcome')})", "unknown outcome"),
                ],
                Look(minimum=0),
                calm="no order has ended since the executor started; a signal fills it.",
            ),
        ),
    )


def _infrastructure() -> Row:
    # A pod's own series: where cAdvisor cannot ask the runtime for containers, it has pods still.
    memory = f'container_memory_working_set_bytes{{job="cadvisor",{_NAMESPACES},pod!="",container=""}}'
    limit = f'kube_pod_container_resource_limits{{{_NAMESPACES},resource="memory"}}'
    apiserver = "apiserver_request_duration_seconds_bucket"
    real = 'fstype!~"tmpfs|ramfs|squashfs|nsfs"'
    wire = 'device!~"lo|veth.*|kube-.*|cni.*|flannel.*|cali.*"'
    return Row(
        "Infrastructure",
        (
            timeseries_panel(
                "CPU by host",
                "Share of all processors in use, by host.",
                [
                    Query(
                        '1 - avg by (node) (rate(node_cpu_seconds_total{job="node-exporter",mode="idle"}'
                        "[$__rate_interval]))",
                        "{{node}}",
                    )
                ],
                Look("percentunit", minimum=0, maximum=1, steps=_SHARE_OF_LIMIT),
            ),
            timeseries_panel(
                "Memory by host",
                "Share of memory that is not available, by host.",
                [
                    Query(
                        '1 - node_memory_MemAvailable_bytes{job="node-exporter"}'
                        ' / node_memory_MemTotal_bytes{job="node-exporter"}',
                        "{{node}}",
                    )
                ],
                Look("percentunit", minimum=0, maximum=1, steps=_SHARE_OF_LIMIT),
            ),
            timeseries_panel(
                "Disk by host",
                "Use of the fullest file system, by host. The services' volumes are folders on it.",
                [
                    Query(
                        f'max by (node) (1 - node_filesystem_avail_bytes{{job="node-exporter",{real}}}'
                        f' / node_filesystem_size_bytes{{job="node-exporter",{real}}})',
                        "{{node}}",
                    )
                ],
                Look("percentunit", minimum=0, maximum=1, steps=_SHARE_OF_LIMIT),
            ),
            timeseries_panel(
                "Network by host",
                "Bytes a second received and sent, by host.",
                [
                    Query(
                        f"sum by (node) (rate(node_network_{direction}_bytes_total"
                        f'{{job="node-exporter",{wire}}}[$__rate_interval]))',
                        f"{{{{node}}}} {text}",
                    )
                    for direction, text in (("receive", "in"), ("transmit", "out"))
                ],
                Look("Bps", minimum=0),
            ),
            timeseries_panel(
                "Pod memory against its limit",
                "Working set over the limits of its containers, the ten highest. Near 1 the kernel kills one of them.",
                [
                    Query(
                        f"topk(10, max by (namespace, pod) ({memory}) / sum by (namespace, pod) ({limit}))",
                        "{{pod}}",
                    )
                ],
                Look("percentunit", minimum=0, steps=_SHARE_OF_LIMIT),
            ),
            timeseries_panel(
                "Container restarts",
                "Restarts of containers; more than one is a crash loop.",
                [
                    Query(
                        "sum by (namespace, pod) (increase("
                        f"kube_pod_container_status_restarts_total{{{_NAMESPACES}}}[$__rate_interval])) > 0",
                        "{{pod}}",
                    )
                ],
                Look(minimum=0),
                calm="nothing restarts; a killed process in a pod fills it.",
            ),
            timeseries_panel(
                "API server and etcd latency (p99)",
                "p99 of requests to the Kubernetes API by verb, and of etcd's writes to its log.",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (le, verb) (rate("
                        f'{apiserver}{{job="apiserver",verb!~"WATCH|CONNECT"}}[$__rate_interval])))',
                        "API {{verb}}",
                    ),
                    Query(
                        "histogram_quantile(0.99, sum by (le) (rate("
                        'etcd_disk_wal_fsync_duration_seconds_bucket{job="etcd"}[$__rate_interval])))',
                        "etcd log",
                    ),
                ],
                Look("s", minimum=0, steps=((None, GREEN), (1, YELLOW))),
            ),
            timeseries_panel(
                "PostgreSQL connections and Valkey memory",
                "PostgreSQL's connections over its limit, Valkey's memory over its limit.",
                [
                    Query(
                        'sum by (service) (pg_stat_activity_count{job="kubernetes-pods-metrics"})'
                        ' / on (service) max by (service) (pg_settings_max_connections{job="kubernetes-pods-metrics"})',
                        "{{service}} connections",
                    ),
                    Query(
                        'max by (service) (redis_memory_used_bytes{job="kubernetes-pods-metrics"})'
                        ' / max by (service) (redis_memory_max_bytes{job="kubernetes-pods-metrics"} > 0)',
                        "{{service}} memory",
                    ),
                ],
                Look("percentunit", minimum=0, steps=_SHARE_OF_LIMIT),
            ),
            timeseries_panel(
                "Prometheus, Loki and Promtail throughput",
                "Samples a second into Prometheus, lines a second into Loki, lines that Promtail gave up.",
                [
                    Query("sum(rate(prometheus_tsdb_head_samples_appended_total[$__rate_interval]))", "samples"),
                    Query("sum(rate(loki_distributor_lines_received_total[$__rate_interval]))", "lines"),
                    Query("sum(rate(promtail_dropped_entries_total[$__rate_interval]))", "lines lost"),
                ],
                Look("cps", minimum=0),
            ),
        ),
    )


def _ranked_alerts() -> str:
    """What fires before what is pending, and of each the more severe first: no order of the labels' texts is that."""
    alerts = f"ALERTS{{{shared.NOT_WATCHDOG}"
    state = f'3 * {alerts},alertstate="firing"}} or {alerts}}}'
    severity = f'3 * {alerts},severity="critical"}} or 2 * {alerts},severity="warning"}} or {alerts}}}'
    return f"sort_desc(2 * ({state}) + ({severity}))"


def _alerts() -> Row:
    delay = "alert_notification_delay_seconds"
    return Row(
        "Alerts & Anomalies",
        (
            table_panel(
                "Pending and firing alerts",
                "Firing and pending alerts, those that fire first, then by severity. Click a name for its runbook.",
                [_ranked_alerts()],
                (
                    Column("alertname", "alertname", Look(links=_RUNBOOK)),
                    Column("severity", "severity", Look(texts=_SEVERITIES)),
                    Column("team", "team"),
                    Column("alertstate", "state", Look(texts=_STATES)),
                    *(
                        Column(label, label.removesuffix("_id"))
                        for label in ("namespace", "service", "node", "exchange", "product_id")
                    ),
                ),
                width=24,
                height=8,
                calm="no alert is pending or firing; any injected fault fills it.",
            ),
            timeline_panel(
                "Alert timeline",
                "A band an alert, while it fired.",
                [Query(f"max by (alertname) ({_FIRING}}})", "{{alertname}}")],
                Look(texts={"1": ("firing", RED)}, steps=((None, RED),)),
                calm="no alert fired; any injected fault that lasts fills it.",
            ),
            timeseries_panel(
                "Anomaly scores",
                "The ten highest scores: how many robust standard deviations a series is from what is usual at this"
                " time of day or lately. Above 6 an alert follows.",
                [
                    Query(
                        f"topk(10, max by (group, series) ({own('anomaly_score')}))",
                        "{{series}}",
                    )
                ],
                Look(minimum=0, decimals=1, steps=((None, GREEN), (4, YELLOW), (6, RED))),
                width=12,
                calm="the detector has too little history; half an hour of running fills it.",
            ),
            stat_panel(
                "Since last anomaly detection",
                "Time since its last run that succeeded. When it is stale, plain thresholds stand in for it.",
                [Query(f"time() - max({own('anomaly_detector_last_run_timestamp_seconds')} > 0)", instant=True)],
                Look("s", steps=((None, GREEN), (180, YELLOW), (600, RED)), decimals=0),
                width=5,
            ),
            stat_panel(
                "Gaps in anomaly detection",
                "Series without a score (their history is too short, or they ended), queries with more series than are"
                " looked at, and queries that failed over the time shown: what it does not see.",
                [
                    Query(
                        f"count({own('anomaly_series_unscored')} == 1) or vector(0)", "series unscored", instant=True
                    ),
                    Query(f"sum({own('anomaly_query_truncated')})", "queries cut", instant=True),
                    Query(
                        f"sum(increase({own('anomaly_query_failures_total')}[$__range]))",
                        "queries failed",
                        instant=True,
                    ),
                ],
                Look(decimals=0, steps=((None, GREEN), (1, YELLOW))),
                width=9,
            ),
            stat_panel(
                "Unacknowledged critical alerts",
                "They are escalated when nobody does.",
                [Query(f"max({own('alerts_unacknowledged')})", instant=True)],
                Look(steps=ZERO_IS_GOOD),
                width=5,
            ),
            stat_panel(
                "Notifications waiting",
                "Notifications not yet delivered, by receiver.",
                [Query(f"sum by (receiver) ({own('alert_notifications_pending')})", "{{receiver}}", instant=True)],
                Look(steps=((None, GREEN), (1, ORANGE), (10, RED))),
                width=5,
            ),
            timeseries_panel(
                "Notifications per minute",
                "Notifications a minute by receiver and status, and those that Alertmanager could not hand over.",
                [
                    Query(
                        f"60 * sum by (receiver, status) ({rate('alert_notifications_total')})",
                        "{{receiver}} {{status}}",
                    ),
                    Query(
                        "60 * sum(rate(alertmanager_notifications_failed_total[$__rate_interval]))",
                        "not handed over",
                    ),
                ],
                Look(minimum=0),
            ),
            timeseries_panel(
                "Notification delay (p95)",
                "p95 of the time from an alert's change to the receiver's confirmation, and this service's part of it.",
                [Query(quantile(0.95, delay, by="since"), "since the {{since}}")],
                Look("s", minimum=0, steps=((None, GREEN), (60, RED))),
                calm="nobody was notified; any injected fault fills it.",
            ),
            table_panel(
                "Targets that do not answer",
                "Targets whose last scrape failed.",
                ["up == 0"],
                tuple(Column(label, label) for label in ("job", "namespace", "service", "node", "instance")),
                width=8,
                height=8,
                calm="every target answers; a service scaled to 0 replicas, or a dead host, fills it.",
            ),
        ),
    )


def _logs() -> Row:
    return Row(
        "Unified Logs",
        (
            *shared.log_blocks("$namespace"),
            logs_panel(
                "Host journals",
                "The hosts' journals: what k3s says.",
                '{job="journal"} |~ "$search"',
            ),
            timeseries_panel(
                "Binary log lines by pod",
                "Lines with bytes that are no text, since the first of them: Promtail replaces such bytes, and forgets"
                " the count when none came for five minutes.",
                [
                    Query(
                        'sum by (namespace, pod) (promtail_custom_binary_lines_total{job="promtail"})',
                        "{{namespace}}/{{pod}}",
                    )
                ],
                Look(minimum=0, decimals=0),
                width=24,
                calm="every line is text; a pod that writes such bytes fills it.",
            ),
        ),
    )
