"""The page at /docs: everything it needs comes from here, and what it may do is written in its headers."""

import base64
import hashlib
import re
from pathlib import Path

import httpx
import pytest

from tests.sidecar_process import SidecarProcess

VENDOR = Path(__file__).parents[2] / "src" / "creditgate" / "api" / "vendor"
PAGES = {
    "/docs": "text/html; charset=utf-8",
    "/docs/docs.css": "text/css; charset=utf-8",
    "/docs/redoc.standalone.js": "text/javascript; charset=utf-8",
    "/openapi.json": "application/json",
}


@pytest.mark.parametrize("path", PAGES)
def test_pages(sidecar: SidecarProcess, path: str) -> None:
    """Each part is served without a key, by its type alone, and to nobody else's page."""
    answer = httpx.get(f"{sidecar.url}{path}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, PAGES[path])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert httpx.head(f"{sidecar.url}{path}").status_code == 200
    assert httpx.post(f"{sidecar.url}{path}").status_code == 405
    assert httpx.get(f"{sidecar.url}{path}", headers={"Host": "evil.example"}).status_code == 400


def test_the_page_needs_nothing_from_elsewhere(sidecar: SidecarProcess) -> None:
    """On a machine without a network the page is whole: what it names is served here, and nothing stands inline."""
    html = httpx.get(f"{sidecar.url}/docs").text
    named = re.findall(r'(?:src|href|spec-url)="([^"]+)"', html)
    assert sorted(named) == sorted(set(PAGES) - {"/docs"})
    assert "//" not in html
    assert not re.search(r"<style|<script(?! src=)|\son\w+=", html)
    assert "url(" not in httpx.get(f"{sidecar.url}/docs/docs.css").text


def test_the_policy_of_the_page(sidecar: SidecarProcess) -> None:
    """Whatever the vendored script asks for, the browser loads nothing from another origin and frames it nowhere."""
    header = httpx.get(f"{sidecar.url}/docs").headers["Content-Security-Policy"]
    policy = {name: sources for name, *sources in (part.split() for part in header.split(";"))}
    empty = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    assert policy == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'", f"'sha256-{empty}'"],
        "img-src": ["data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }


def test_what_others_wrote_is_as_they_published_it() -> None:
    """A change of vendored code is seen: each file stands in the table with its SHA-256, licences too."""
    table = dict(
        re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M)
    )
    files = {path.name: path.read_bytes() for path in VENDOR.iterdir() if path.name != "README.md"}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == table
    assert b"MIT" in files["redoc.LICENSE"]
    assert b"redoc.standalone.js.LICENSE.txt" in files["redoc.standalone.js"][:200]
