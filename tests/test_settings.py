"""Settings as values: what of them may be shown."""

import pytest

from creditgate.settings import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("unix:///var/run/valkey.sock", "unix:///var/run/valkey.sock"),
        ("sqlite:////var/lib/ledger.db", "sqlite:////var/lib/ledger.db"),
        ("redis://:hidden@host", "redis://:PASSWORD@host"),
        ("redis://user@host", "redis://user@host"),
        ("postgresql://user:hid@d:e/n@host/name", "postgresql://user:PASSWORD@host/name"),
        (
            "postgresql://h/n?user=u&password=hidden&sslmode=x",
            "postgresql://h/n?user=u&password=PASSWORD&sslmode=x",
        ),
        ("unix:///s?sslPassword=hidden", "unix:///s?sslPassword=PASSWORD"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """What a command prints goes into chats and tickets; a password in a URL must not, wherever it stands."""
    assert without_password(url) == shown
