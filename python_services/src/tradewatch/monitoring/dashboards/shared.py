"""What both dashboards have: variables, marks on the time axis, links, and panels that differ by their selection."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from tradewatch.monitoring.dashboards.parts import (
    AVAILABILITY_JOB,
    AVAILABLE,
    BLUE,
    GREEN,
    OWN_JOB,
    RED,
    TAG,
    TO_SERVICE,
    UP_OR_DOWN,
    YELLOW,
    Block,
    Look,
    Query,
    annotation,
    constant,
    label_variable,
    logs_panel,
    own,
    quantile,
    stat_panel,
    text_variable,
    timeline_panel,
    timeseries_panel,
)

NOT_WATCHDOG = 'alertname!="Watchdog"'
ERRORS = 'level=~"error|critical|fatal"'


def variables(namespace: str | None) -> Sequence[Builder[models.VariableModel]]:
    """The choices; without `namespace` it can be chosen too."""
    chosen = f'namespace="{namespace}"' if namespace else 'namespace=~"$namespace"'
    choices = [
        label_variable(
            "service",
            "Service",
            f"label_values(up{{{AVAILABILITY_JOB},{chosen}}}, service)",
            "Narrows availability, resources and logs.",
        ),
        label_variable(
            "exchange",
            "Exchange",
            f"label_values(market_data_messages_total{{{OWN_JOB}}}, exchange)",
            "Narrows what is by exchange.",
        ),
        label_variable(
            "product",
            "Product",
            f"label_values(market_data_messages_total{{{OWN_JOB}}}, product_id)",
            "Narrows what is by product.",
        ),
        text_variable("search", "Log text", "Log lines that hold this text; a regular expression."),
        text_variable("trace_id", "Trace", "The trace id of one decision: its lines in every service."),
        constant("runbooks_url", "docs/runbooks"),
    ]
    if not namespace:
        every = f"label_values(up{{{AVAILABILITY_JOB}}}, namespace)"
        choices.insert(0, label_variable("namespace", "Namespace", every, "Narrows the services to choose from."))
    return choices


def annotations(namespace: str) -> Sequence[Builder[models.AnnotationQuery]]:
    """Deployments of `namespace` (a matcher's pattern), firing alerts, the kill switch."""
    changed = f'changes(kube_deployment_status_observed_generation{{namespace=~"{namespace}"}}[2m]) > 0'
    return (
        annotation("Deployments", changed, "{{namespace}}/{{deployment}} deployed", BLUE),
        annotation("Alerts", f'ALERTS{{alertstate="firing",{NOT_WATCHDOG}}}', "{{alertname}} ({{severity}})", YELLOW),
        annotation(
            "Kill switch", f"max without (pod, node) ({own('kill_switch_engaged')}) == 1", "kill switch engaged", RED
        ),
    )


def links(other_uid: str, other_title: str) -> Sequence[Builder[models.DashboardLink]]:
    """To the other dashboard with the same choices and time, and to the runbooks."""
    return (
        dashboard.DashboardLink(other_title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{other_uid}")
        .icon("dashboard")
        .tags([TAG])
        .include_vars(True)
        .keep_time(True),
        dashboard.DashboardLink("Runbooks")
        .type(models.DashboardLinkType.LINK)
        .url("${runbooks_url}/README.md")
        .icon("doc")
        .target_blank(True),
    )


def kill_switch(*matchers: str) -> Block:
    """Whether it is engaged, as those of its series say that match."""
    return stat_panel(
        "Kill switch",
        "Engaged: nothing is traded until somebody releases it with `tradewatch kill-switch release`.",
        [Query(f"max({own('kill_switch_engaged', *matchers)})", instant=True)],
        Look(texts={"0": ("released", GREEN), "1": ("ENGAGED", RED)}),
    )


def availability(namespace: str, width: int = 12) -> Block:
    """Which Services were available, over time."""
    matchers = f'namespace=~"{namespace}",service=~"$service"'
    return timeline_panel(
        "Service availability",
        "A band a service: green while it answered its scrape and had a ready replica, red while not. Click for the"
        " service alone or its logs.",
        [Query(f"{AVAILABLE}{{{matchers}}}", "{{service}}")],
        Look(texts=UP_OR_DOWN, steps=((None, RED), (1, GREEN)), links=TO_SERVICE, minimum=0, maximum=1),
        width=width,
    )


def end_to_end(width: int = 8) -> Block:
    """How long a decision takes."""
    histogram, to_order = "pipeline_end_to_end_duration_seconds", "pipeline_signal_to_order_duration_seconds"
    return timeseries_panel(
        "End-to-end duration",
        "From the signal to the decision's end, and to its order. A dot is one decision: its trace id leads to its log"
        " lines. No line while nothing is decided.",
        [
            Query(quantile(0.5, histogram), "p50 to the end", exemplars=True),
            Query(quantile(0.99, histogram), "p99 to the end", exemplars=True),
            Query(quantile(0.99, to_order), "p99 to the order"),
        ],
        Look("s", steps=((None, GREEN), (5, YELLOW), (30, RED)), minimum=0),
        width=width,
        calm="no signal was decided; a signal fills it.",
    )


def log_blocks(namespace: str) -> Sequence[Block]:
    """Volume, errors, the lines, and the lines of one trace; the third and fourth are linked to by their place."""
    chosen = f'namespace=~"{namespace}", service=~"$service"'
    return (
        timeseries_panel(
            "Log lines per second by service",
            "Lines a second by service. A service that falls silent, or one that floods, stands out.",
            [Query(f"sum by (service) (rate({{{chosen}}}[$__interval]))", "{{service}}", loki=True)],
            Look("ops", minimum=0),
            width=12,
            stacked=True,
        ),
        timeseries_panel(
            "Error lines per second by service",
            "Lines of level error and above, by service.",
            [
                Query(
                    f"sum by (service) (count_over_time({{{chosen}, {ERRORS}}}[$__interval]))",
                    "{{service}}",
                    loki=True,
                )
            ],
            Look(minimum=0, steps=((None, GREEN), (1, RED))),
            width=12,
            stacked=True,
            calm="no service logged an error; a PostgreSQL or Valkey outage fills it.",
        ),
        logs_panel(
            "Service logs",
            "Lines of the chosen services, newest first, with the text of the choice above. A line's trace_id leads to"
            " its decision.",
            f'{{{chosen}}} |~ "$search"',
            height=12,
        ),
        logs_panel(
            "Trace of one decision",
            "Every line of every service with the chosen trace id, from the quote to the fill; without one, every line"
            " that has a trace.",
            '{namespace=~".+"} | trace_id=~".*$trace_id.*" | trace_id!=""',
        ),
    )
