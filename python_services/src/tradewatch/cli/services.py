"""The services that `tradewatch run` knows.

Each is imported only when it is run: one service's libraries are no part of another's memory or start.
"""

import importlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tradewatch.common.settings import CommonSettings


@dataclass(frozen=True)
class ServiceEntry:
    """A service: what it is for, and the module that holds its settings class and its coroutine `main(settings)`."""

    summary: str
    module: str
    settings: str

    def settings_class(self) -> type[CommonSettings]:
        """The class of its settings."""
        found: type[CommonSettings] = getattr(importlib.import_module(self.module), self.settings)
        return found

    def main(self) -> Callable[[Any], Coroutine[Any, Any, int]]:
        """Its entry: takes the settings, gives the exit code."""
        found: Callable[[Any], Coroutine[Any, Any, int]] = importlib.import_module(self.module).main
        return found


SERVICES: dict[str, ServiceEntry] = {
    "market-data-collector": ServiceEntry(
        "bring one exchange's market data onto the bus",
        "tradewatch.collectors.market_data_collector",
        "MarketDataCollectorSettings",
    ),
    "market-data-aggregator": ServiceEntry(
        "make candles and quotes of every exchange's market data",
        "tradewatch.collectors.aggregator.service",
        "MarketDataAggregatorSettings",
    ),
    "technical-indicators": ServiceEntry(
        "calculate indicators of every closed candle",
        "tradewatch.collectors.indicators.service",
        "TechnicalIndicatorsSettings",
    ),
    "sentiment-analyzer": ServiceEntry(
        "score the news about each asset, from RSS and Atom feeds",
        "tradewatch.collectors.sentiment.service",
        "SentimentAnalyzerSettings",
    ),
    "health-monitor": ServiceEntry(
        "watch that data is fresh and complete, the bus carries, and dependencies are ready",
        "tradewatch.collectors.health_monitor.service",
        "HealthMonitorSettings",
    ),
    "signal-generator": ServiceEntry(
        "foresee each product's next move, and signal what is sure enough",
        "tradewatch.trading.signals.service",
        "SignalGeneratorSettings",
    ),
    "llm-validator": ServiceEntry(
        "have a language model look at each signal, and deny whatever it does not clearly approve",
        "tradewatch.trading.llm.service",
        "LlmValidatorSettings",
    ),
    "llm-simulator": ServiceEntry(
        "stand in for a language model's API, with verdicts by rule and faults on request",
        "tradewatch.simulators.llm.service",
        "LlmSimulatorSettings",
    ),
    "trade-orchestrator": ServiceEntry(
        "carry each signal through risk, language model and execution to its end",
        "tradewatch.trading.orchestrator.service",
        "TradeOrchestratorSettings",
    ),
    "risk-manager": ServiceEntry(
        "answer what may be ordered, and hold the kill switch",
        "tradewatch.trading.risk.service",
        "RiskManagerSettings",
    ),
    "trade-executor": ServiceEntry(
        "make at most one order of each approved decision, and follow it to its end",
        "tradewatch.trading.execution.service",
        "TradeExecutorSettings",
    ),
    "alert-notifier": ServiceEntry(
        "take alerts from Alertmanager, and tell people until each is told",
        "tradewatch.monitoring.alert_notifier.service",
        "AlertNotifierSettings",
    ),
    "watchdog-receiver": ServiceEntry(
        "outside the cluster, tell people when the cluster has gone silent",
        "tradewatch.monitoring.watchdog_receiver.service",
        "WatchdogReceiverSettings",
    ),
    "chat-simulator": ServiceEntry(
        "stand in for the chats and pagers that notifications go to, with faults on request",
        "tradewatch.simulators.chat.service",
        "ChatSimulatorSettings",
    ),
    "dashboard-report": ServiceEntry(
        "show the dashboards as a web page, without Grafana",
        "tradewatch.monitoring.dashboard_report.service",
        "DashboardReportSettings",
    ),
    "anomaly-detector": ServiceEntry(
        "say which key series are not as they usually are, and which of them moved most",
        "tradewatch.monitoring.anomaly_detector.service",
        "AnomalyDetectorSettings",
    ),
    "exchange-simulator": ServiceEntry(
        "stand in for an exchange, with seeded prices and faults on request",
        "tradewatch.simulators.exchange.service",
        "ExchangeSimulatorSettings",
    ),
    "news-simulator": ServiceEntry(
        "stand in for news sites, with seeded headlines and faults on request",
        "tradewatch.simulators.news.service",
        "NewsSimulatorSettings",
    ),
}
