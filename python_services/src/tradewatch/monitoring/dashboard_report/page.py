"""The page's parts: the shell that the service serves, and the one file that holds everything."""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

# Plotly comes with its wheel, the others with this package. It is last, for it is the one that takes long: the page
# asks for its data and draws what is no plot in the meantime.
PLOTLY = "plotly.min.js"
SCRIPTS = ("format.js", "plots.js", "viewer.js", PLOTLY)
STYLES = ("viewer.css",)
CONTENT_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
ICON = "icon.svg"
# Everything comes from the page itself, nothing runs that is not one of its files, nobody frames it.
# Plotly writes style attributes, and draws heatmaps as images.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)


@cache
def asset(name: str) -> bytes:
    """One of the page's files, UTF-8."""
    folder = files("plotly") / "package_data" if name == PLOTLY else files(__package__) / "web"
    return (folder / name).read_bytes()


@cache
def packed(name: str) -> bytes:
    """The same with gzip, for Plotly is megabytes."""
    return gzip.compress(asset(name), compresslevel=6, mtime=0)


def shell(version: str, start: Mapping[str, Any]) -> str:
    """The page as it is served; `version` in the addresses of its files lets browsers keep them until they change.

    `start` is what the page would ask for first.
    """
    styles = "".join(f'<link rel="stylesheet" href="/static/{name}?{version}">' for name in STYLES)
    scripts = "".join(f'<script defer src="/static/{name}?{version}"></script>' for name in SCRIPTS)
    icon = f'<link rel="icon" href="/static/{ICON}?{version}">'
    return _document("Tradewatch", f"{icon}{styles}{scripts}", "", f' data-start="{html.escape(_json(start))}"')


def report(title: str, data: Mapping[str, Any]) -> str:
    """One file with the page's scripts, styles and data, which asks the network for nothing.

    Its own Content-Security-Policy lets run what has the right SHA-256, and no other script.
    """
    # No "</script>" and no "<!--" can be in what is between the tags; "\u003c" is the same to JSON.
    embedded = _json(data).replace("<", "\\u003c")
    scripts = [asset(name).decode() for name in SCRIPTS]
    styles = [asset(name).decode() for name in STYLES]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_digest, scripts))}; "
        "style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
    head += "".join(f"<style>{text}</style>" for text in styles)
    body = f'<script type="application/json" id="report">{embedded}</script>'
    body += "".join(f"<script>{text}</script>" for text in scripts)
    return _document(title, head, body)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _document(title: str, head: str, body: str, attributes: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="dark">'
        f"<title>{html.escape(title)}</title>{head}</head>"
        "<body><noscript>This page draws its plots with JavaScript.</noscript>"
        f'<div id="app"{attributes}></div>{body}</body></html>\n'
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
