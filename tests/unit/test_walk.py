"""The walk of docs/operations.md says what `make walk` does, in the words of the dashboards and of the rules."""

from __future__ import annotations

import json
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from tests import walk
from tests.bench import between_markers
from tests.commands import REPOSITORY

PAGE = walk.PAGE.read_text()
NAMES = {walk.HEALTH, walk.ALERTS, walk.SERVICE, walk.ENGINE, walk.LOGS, walk.CAUSE}


def panels(dashboard: str) -> dict[int, dict[str, Any]]:
    document = json.loads((REPOSITORY / f"files/dashboards/{dashboard}.json").read_text())
    return {panel["id"]: panel for panel in document["panels"]}


def colours(picture: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG with a palette and unfiltered rows."""
    chunks, at = {}, 8
    while at < len(picture):
        (size,) = struct.unpack(">I", picture[at : at + 4])
        kind, data = picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]
        assert struct.unpack(">I", picture[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + data),)
        chunks[kind], at = data, at + 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return np.frombuffer(chunks[b"PLTE"], dtype=np.uint8).reshape(-1, 3)[rows[:, 1:]]


def test_the_page_shows_the_pictures_that_are_there() -> None:
    shown = set(re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", PAGE))
    assert shown == {path.name for path in walk.PICTURES.glob("*")}


def test_no_picture_is_large_or_left_over() -> None:
    found = list(walk.PICTURES.glob("*"))
    assert {path.name for path in found} <= NAMES
    assert all(path.stat().st_size <= walk.MAX_PICTURE_BYTES for path in found)


def test_the_page_names_panels_by_their_titles() -> None:
    unified, engine = panels("unified-system"), panels("crypto-trading-engine")
    for panel in (unified[107], unified[108], unified[501], unified[603], engine[105], engine[304], engine[305]):
        assert f'"{panel["title"]}"' in PAGE.replace("\n", " ")


def test_the_page_has_the_panels_queries() -> None:
    lines = panels("unified-system")[603]["targets"][0]["expr"]
    chosen = {"$namespace": "crypto-trading", "$service": walk.SICK, "$search": ""}
    for variable, value in chosen.items():
        lines = lines.replace(variable, value)
    refused = panels("crypto-trading-engine")[304]["targets"][0]["expr"]
    refused = refused.replace('exchange=~"$exchange",', "").replace("$__rate_interval", "5m")
    assert {lines, refused, walk.WHY} <= set(PAGE.splitlines())
    assert walk.WHY in (REPOSITORY / f"docs/runbooks/{walk.ALERT}.md").read_text()


def test_the_walk_and_the_page_ask_for_what_the_dashboards_draw() -> None:
    metric = walk.AVAILABLE.partition("{")[0]
    for panel in (panels("unified-system")[number] for number in (102, 107, 108)):
        assert metric in panel["targets"][0]["expr"]
    assert metric in panels("crypto-trading-engine")[103]["targets"][0]["expr"]
    assert f"`{metric}`" in PAGE


def test_the_alert_is_one_that_is_told_to_those_who_are_waited_for() -> None:
    groups = yaml.safe_load((REPOSITORY / "files/rules/execution.yml").read_text())["groups"]
    [rule] = [rule for group in groups for rule in group["rules"] if rule.get("alert") == walk.ALERT]
    lab = yaml.safe_load((REPOSITORY / "inventory/lab/group_vars/all/overrides.yml").read_text())
    for route in lab["lab_alert_receivers"]["routes"]:
        if all(route.get(label, rule["labels"][label]) == rule["labels"][label] for label in ("team", "severity")):
            assert set(route["receivers"]) == walk.RECEIVERS
            return
    pytest.fail("no route takes the alert")


def test_the_times_go_between_the_pages_markers() -> None:
    before, after = walk.Watch(), walk.Watch()
    before.see("it breaks")
    after.see("it is mended")
    page = between_markers(PAGE, "walk", walk.section(before, after))
    assert "| 0 s | it breaks |" in page
    assert page.index("it breaks") < page.index("it is mended")
    assert between_markers(page, "walk", "") != page


def test_few_colours_are_kept_as_they_are() -> None:
    pixels = np.zeros((3, 70, 3), dtype=np.uint8)
    pixels[0, :, 0] = np.arange(70)
    pixels[2, :, 2] = 255
    assert (colours(walk.with_palette(pixels)) == pixels).all()


def test_many_colours_become_like_ones() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.abs(colours(walk.with_palette(pixels)).astype(int) - pixels).max() < 64
