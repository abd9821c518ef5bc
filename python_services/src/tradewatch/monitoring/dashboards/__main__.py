"""`python -m tradewatch.monitoring.dashboards FOLDER` writes the dashboards' JSON into the folder."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tradewatch.monitoring.dashboards import trading_engine, unified_system

BUILDERS = {"crypto-trading-engine.json": trading_engine.build, "unified-system.json": unified_system.build}


def rendered() -> dict[str, str]:
    """The text of each file by its name."""
    return {
        name: json.dumps(build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for name, build in BUILDERS.items()
    }


if __name__ == "__main__":
    for name, text in rendered().items():
        Path(sys.argv[1], name).write_text(text)
