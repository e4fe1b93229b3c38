"""What a customer's browser does with a payment_url: opens the page and, when they press Pay, posts its form."""

from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx


def pay(payment_url: str) -> str:
    """Return where the browser is sent once it has paid."""
    with httpx.Client() as browser:
        page = browser.get(payment_url).raise_for_status()
        form = _Form()
        form.feed(page.text)
        assert form.method == "post", page.text
        paid = browser.post(
            urljoin(payment_url, form.action),
            data=form.fields,
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"{page.url.scheme}://{page.url.netloc.decode()}",
                "Sec-Fetch-Site": "same-origin",
            },
        )
    assert paid.status_code == 303, paid.text
    return paid.headers["location"]


class _Form(HTMLParser):
    """The one form of a page; without an action it posts to where it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.method = ""
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.method, self.action = values.get("method", "get"), values.get("action", "")
        elif tag == "input":
            self.fields[values["name"]] = values.get("value", "")
