"""What the dashboards are made of: queries, panels, rows, variables and links, in the one style of this project.

A panel's title names what it shows, its description says how to read it. Only these types are used, which
dashboard-report draws as well: timeseries, stat, table, state-timeline, heatmap and logs, in rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.loki import Dataquery as LokiQuery
from grafana_foundation_sdk.models.prometheus import Dataquery as PrometheusQuery
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.table import Options as TableOptions

from tradewatch.monitoring.dashboards.queries import CALM

PROMETHEUS = common_models.DataSourceRef(type_val="prometheus", uid="prometheus")
LOKI = common_models.DataSourceRef(type_val="loki", uid="loki")

UNIFIED_SYSTEM = "unified-system"
TRADING_ENGINE = "crypto-trading-engine"
TAG = "tradewatch"
REFRESH = "30s"

COLUMNS = 24
# Every replica's own metrics; the job by Service has one target a Service and would count them twice.
OWN_JOB = 'job="kubernetes-pods-metrics"'
AVAILABILITY_JOB = 'job="kubernetes-services-metrics"'
# Recorded by files/rules/kubernetes.yml, 0 or 1: a scrape alone goes on over a connection to a pod that is not ready.
AVAILABLE = "namespace_service:available:min"

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
# (from this value on, colour); None is the lowest.
Steps = Sequence[tuple[float | None, str]]
OK: Steps = ((None, GREEN),)
ZERO_IS_GOOD: Steps = ((None, GREEN), (1, RED))

Texts = dict[str, tuple[str, str]]
UP_OR_DOWN: Texts = {"0": ("down", RED), "1": ("up", GREEN)}


def own(metric: str, *matchers: str) -> str:
    """The selector of a metric of our own services."""
    return f"{metric}{{{','.join((OWN_JOB, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """Events a second of a counter of our own services."""
    return f"rate({own(metric, *matchers)}[$__rate_interval])"


def quantile(of: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram of our own services; `by` are labels to keep apart, with commas between."""
    labels = ", ".join(label for label in ("le", by) if label)
    return f"histogram_quantile({of}, sum by ({labels}) ({rate(f'{histogram}_bucket', *matchers)}))"


@dataclass(frozen=True)
class Query:
    """One PromQL or LogQL query. `exemplars` asks for trace ids beside the samples."""

    expr: str
    legend: str = ""
    instant: bool = False
    exemplars: bool = False
    loki: bool = False

    def target(self, letter: str, format_val: PromQueryFormat) -> Builder[PrometheusQuery]:
        """The query for Prometheus as a panel's target with the name `letter`."""
        built = prometheus.Dataquery().expr(self.expr).ref_id(letter).datasource(PROMETHEUS).format(format_val)
        if self.legend:
            built.legend_format(self.legend)
        if self.exemplars:
            built.exemplar(True)
        return built.instant() if self.instant else built.range()

    def loki_target(self, letter: str) -> Builder[LokiQuery]:
        """The query for Loki as a panel's target with the name `letter`."""
        built = loki.Dataquery().expr(self.expr).ref_id(letter).datasource(LOKI)
        if self.legend:
            built.legend_format(self.legend)
        return built.query_type("instant" if self.instant else "range")


@dataclass(frozen=True)
class Look:
    """How values are shown, and where a click on one leads. `texts` stand in place of values."""

    unit: str = "short"
    steps: Steps = OK
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    texts: Texts = field(default_factory=dict)
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Column:
    """A column of a table: the label or `Value #A` that it shows, its heading, how."""

    source: str
    heading: str
    look: Look = field(default_factory=Look)


@dataclass(frozen=True)
class Block:
    """A panel before it has its place: width in columns of 24, height in units of 30 pixels."""

    panel: models.Panel
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """A titled row of panels; they are placed from left to right, all of a line as high as its highest."""

    title: str
    blocks: Sequence[Block]


def logs_url(service: str, namespace: str) -> str:
    """The lines of one service in the unified system, over the same time."""
    return _unified(f"var-namespace={namespace}&var-service={service}&viewPanel={LOGS_PANEL}")


def service_url(service: str, namespace: str) -> str:
    """The unified system, of one service alone, over the same time."""
    return _unified(f"var-namespace={namespace}&var-service={service}")


def trace_url(trace_id: str) -> str:
    """Every line of one decision, over the same time."""
    return _unified(f"var-trace_id={trace_id}&viewPanel={TRACE_PANEL}")


def _unified(parameters: str) -> str:
    return f"/d/{UNIFIED_SYSTEM}?{parameters}&${{__url_time_range}}"


# In both dashboards: the sixth row's third and fourth panel.
LOGS_PANEL, TRACE_PANEL = 603, 604

TO_SERVICE = (
    ("This service alone", service_url("${__field.labels.service}", "${__field.labels.namespace}")),
    ("Its logs", logs_url("${__field.labels.service}", "${__field.labels.namespace}")),
)
TABLE_TO_SERVICE = (
    ("This service alone", service_url("${__data.fields.service}", "${__data.fields.namespace}")),
    ("Its logs", logs_url("${__data.fields.service}", "${__data.fields.namespace}")),
)


def stat_panel(
    title: str, description: str, queries: Sequence[Query], look: Look, *, width: int = 4, calm: str = ""
) -> Block:
    """Single values, large; the newest of each query's series."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .no_value("none")
    )
    return Block(_finish(panel, title, description, queries, look, calm), width, 4)


def timeseries_panel(
    title: str,
    description: str,
    queries: Sequence[Query],
    look: Look,
    *,
    width: int = 8,
    stacked: bool = False,
    calm: str = "",
) -> Block:
    """Curves over time, `stacked` where their sum means something."""
    panel = (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .show_points(common_models.VisibilityMode.AUTO)
        .line_width(1)
        .fill_opacity(30 if stacked else 5)
        .span_nulls(False)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if len(look.steps) > 1:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    return Block(_finish(panel, title, description, queries, look, calm), width, 8)


def timeline_panel(
    title: str, description: str, queries: Sequence[Query], look: Look, *, width: int = 12, calm: str = ""
) -> Block:
    """A band for each series that shows its state over time."""
    panel = (
        statetimeline.Panel()
        .merge_values(True)
        .show_value(common_models.VisibilityMode.NEVER)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(False)
        )
    )
    return Block(_finish(panel, title, description, queries, look, calm), width, 10)


def heatmap_panel(title: str, description: str, query: Query, look: Look, *, width: int = 8) -> Block:
    """The buckets of a histogram over time."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(look.unit))
        .cell_gap(1)
        .hide_legend()
    )
    return Block(_finish(panel, title, description, [query], look, form=PromQueryFormat.HEATMAP), width, 8)


def table_panel(
    title: str,
    description: str,
    queries: Sequence[str],
    columns: Sequence[Column],
    *,
    width: int = 12,
    height: int = 10,
    sort: str = "",
    descending: bool = False,
    calm: str = "",
) -> Block:
    """Instant queries side by side: rows with equal labels become one, and only `columns` of them are shown."""
    panel = table.Panel().show_header(True).cell_height(common_models.TableCellHeight.SM).filterable(False)
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(descending)])
    named = [Query(expr, instant=True) for expr in queries]
    for column in columns:
        panel.override_by_name(column.heading, _properties(column.look))
    order = {column.source: position for position, column in enumerate(columns)}
    panel.transformations(
        [
            models.DataTransformerConfig(id_val="merge", options={}),
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "includeByName": dict.fromkeys(order, True),
                    "indexByName": order,
                    "renameByName": {column.source: column.heading for column in columns},
                },
            ),
        ]
    )
    built = _finish(panel, title, description, named, Look(), calm, form=PromQueryFormat.TABLE)
    assert isinstance(built.options, TableOptions)
    # Grafana 12.4 has none any more, the SDK still says that there is none.
    built.options.footer = None
    return Block(built, width, height)


def logs_panel(title: str, description: str, expr: str, *, width: int = 24, height: int = 10, calm: str = "") -> Block:
    """Log lines, the newest first."""
    panel = (
        logs.Panel()
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .prettify_log_message(False)
        .sort_order(common_models.LogsSortOrder.DESCENDING)
        .dedup_strategy(common_models.LogsDedupStrategy.NONE)
    )
    return Block(_finish(panel, title, description, [Query(expr, loki=True)], Look(), calm), width, height)


def _finish(
    builder: Builder[models.Panel],
    title: str,
    description: str,
    queries: Sequence[Query],
    look: Look,
    calm: str = "",
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> models.Panel:
    panel = builder.build()
    panel.title = title
    panel.description = f"{description} {CALM}{calm}" if calm else description
    panel.datasource = LOKI if queries[0].loki else PROMETHEUS
    panel.targets = [
        (query.loki_target(letter) if query.loki else query.target(letter, form)).build()
        for letter, query in zip("ABCDEFGH", queries, strict=False)
    ]
    if panel.field_config is None:
        panel.field_config = models.FieldConfigSource()
    defaults = panel.field_config.defaults
    defaults.unit, defaults.decimals = look.unit, look.decimals
    defaults.min_val, defaults.max_val = look.minimum, look.maximum
    defaults.thresholds = _thresholds(look.steps)
    defaults.mappings = [_mapping(look.texts)] if look.texts else None
    defaults.links = [_data_link(*link) for link in look.links] or None
    if panel.type_val == "logs" or any(query.exemplars for query in queries):
        # Where dashboard-report leads from an exemplar or a line; Grafana's data sources say it by themselves.
        panel.field_config.overrides.append(_trace_link())
    colored = panel.type_val in ("stat", "state-timeline")
    mode = models.FieldColorModeId.THRESHOLDS if colored else models.FieldColorModeId.PALETTE_CLASSIC
    defaults.color = models.FieldColor(mode=mode)
    return panel


def _thresholds(steps: Steps) -> models.ThresholdsConfig:
    return models.ThresholdsConfig(
        mode=models.ThresholdsMode.ABSOLUTE,
        steps=[models.Threshold(value=value, color=color) for value, color in steps],
    )


def _mapping(texts: Texts) -> models.ValueMap:
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(texts.items())
        }
    )


def _data_link(title: str, url: str) -> models.DashboardLink:
    return models.DashboardLink(title=title, type_val=models.DashboardLinkType.LINK, url=url)


def _trace_link() -> models.DashboardFieldConfigSourceOverrides:
    link = {"title": "This decision", "url": trace_url("${__data.fields.trace_id}")}
    return models.DashboardFieldConfigSourceOverrides(
        matcher=models.MatcherConfig(id_val="byName", options="trace_id"),
        properties=[models.DynamicConfigValue(id_val="links", value=[link])],
    )


def _properties(look: Look) -> list[models.DynamicConfigValue]:
    """A table column's look as the properties of an override."""
    found: dict[str, object] = {"unit": look.unit}
    if look.decimals is not None:
        found["decimals"] = look.decimals
    if len(look.steps) > 1 or look.texts:
        found["custom.cellOptions"] = {"type": "color-text"}
        found["color"] = models.FieldColor(mode=models.FieldColorModeId.THRESHOLDS)
        found["thresholds"] = _thresholds(look.steps)
    if look.texts:
        found["mappings"] = [_mapping(look.texts)]
    if look.links:
        found["links"] = [{"title": title, "url": url} for title, url in look.links]
    return [models.DynamicConfigValue(id_val=name, value=value) for name, value in found.items()]


def label_variable(name: str, label: str, expr: str, description: str) -> Builder[models.VariableModel]:
    """A choice of several values of a label, all by default: new values appear by themselves."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query(expr)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def text_variable(name: str, label: str, description: str) -> Builder[models.VariableModel]:
    """A text to search for; empty finds everything."""
    return dashboard.TextBoxVariable(name).label(label).description(description).default_value("")


def constant(name: str, value: str) -> Builder[models.VariableModel]:
    """A value that whoever provisions the dashboard may set; viewers do not see it."""
    return dashboard.ConstantVariable(name).value(value)


def annotation(name: str, expr: str, title: str, color: str) -> Builder[models.AnnotationQuery]:
    """Marks on every panel at the times at which `expr` has a value."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color(color)
        .target(prometheus.Dataquery().expr(expr).ref_id("A").datasource(PROMETHEUS).range())
        .step("60s")
        .title_format(title)
    )


def _plain(variable: models.VariableModel) -> models.VariableModel:
    """Without what the SDK says of every variable and only intervals have."""
    variable.auto = variable.auto_min = variable.auto_count = None
    return variable


def assemble(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    variables: Sequence[Builder[models.VariableModel]],
    annotations: Sequence[Builder[models.AnnotationQuery]],
    links: Sequence[Builder[models.DashboardLink]],
) -> models.Dashboard:
    """The whole dashboard; the panels of the row N (from 1) have the ids N01, N02, ..., the row itself N00."""
    # The SDK calls this version of the schema deprecated; the next one is no file that every Grafana reads.
    board = dashboard.Dashboard(title).build()
    board.uid, board.description, board.tags = uid, description, [TAG]
    board.refresh, board.timezone, board.editable = REFRESH, "browser", False
    board.time = models.DashboardDashboardTime(from_val="now-1h", to="now")
    board.graph_tooltip = models.DashboardCursorSync.CROSSHAIR
    board.templating = models.DashboardDashboardTemplating(list_val=[_plain(each.build()) for each in variables])
    board.annotations = models.AnnotationContainer(list_val=[each.build() for each in annotations])
    board.links = [link.build() for link in links]
    board.panels = []
    y = 0
    for number, row in enumerate(rows, 1):
        place = models.GridPos(x=0, y=y, w=COLUMNS, h=1)
        board.panels.append(models.RowPanel(title=row.title, id_val=number * 100, grid_pos=place))
        y += 1
        position = 0
        for line in _lines(row.blocks):
            x, height = 0, max(block.height for block in line)
            for block in line:
                position += 1
                block.panel.id_val = number * 100 + position
                block.panel.grid_pos = models.GridPos(x=x, y=y, w=block.width, h=height)
                board.panels.append(block.panel)
                x += block.width
            y += height
    return board


def _lines(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """What stands side by side."""
    line: list[Block] = []
    for block in blocks:
        if sum(each.width for each in line) + block.width > COLUMNS:
            yield line
            line = []
        line.append(block)
    yield line
