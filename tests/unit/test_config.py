"""Where settings come from, which win, and what an operator reads when one of them is wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from connector.config import Settings
from connector.config_sources import ConfigError, load_settings

KEYS = {"LIVEKIT_API_KEY": "key-of-the-tests", "LIVEKIT_API_SECRET": "secret-of-the-tests"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what each test sets, and the two keys without which nothing starts."""
    for name in os.environ:
        if name.startswith(("CONNECTOR_", "LIVEKIT_", "TWILIO_")):
            monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def yaml(folder: Path, text: str) -> Path:
    file = folder / "connector.yaml"
    file.write_text(text)
    return file


def problem(file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    return caught.value.message


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load_settings()
    assert (settings.livekit_url, settings.host, settings.port) == ("ws://127.0.0.1:7880", "127.0.0.1", 8080)
    assert settings.connect_timeout == 90
    assert settings.answer_grace == 30
    assert settings.media_timeout == 30
    assert settings.greeting == "This is LiveKit Twilio Connector"
    assert settings.public_origin == "http://127.0.0.1:8080"


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = yaml(tmp_path, "host: 10.0.0.1\nport: 1001\nmax_calls: 7\n")
    monkeypatch.setenv("CONNECTOR_HOST", "10.0.0.2")
    monkeypatch.setenv("CONNECTOR_PORT", "1002")
    settings = load_settings(file, {"host": "10.0.0.3", "port": None})
    assert (settings.host, settings.port, settings.max_calls) == ("10.0.0.3", 1002, 7)


@pytest.mark.parametrize("key", ["connect_timeout", "CONNECTOR_CONNECT_TIMEOUT", "connector_connect_timeout"])
def test_a_file_may_spell_a_key_as_the_environment_does(tmp_path: Path, key: str) -> None:
    assert load_settings(yaml(tmp_path, f"{key}: 12.5\n")).connect_timeout == 12.5


def test_variables_that_other_programs_set_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "STORE", "INSTANCE", "GREETING", "PUBLIC_URL", "LOG_LEVEL"):
        monkeypatch.setenv(name, "9999")
    settings = load_settings()
    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 8080, "sqlite:///connector.db")
    assert settings.greeting == "This is LiveKit Twilio Connector"
    assert settings.log_level == "info"


def test_an_empty_greeting_is_a_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_GREETING", "")
    assert load_settings().greeting == ""


@pytest.mark.parametrize(
    ("given", "api", "signalling"),
    [
        ("ws://lk:7880", "http://lk:7880", "ws://lk:7880"),
        ("wss://lk.example.com/", "https://lk.example.com", "wss://lk.example.com"),
        ("http://lk:7880", "http://lk:7880", "ws://lk:7880"),
        ("https://lk.example.com", "https://lk.example.com", "wss://lk.example.com"),
    ],
)
def test_one_livekit_url_serves_api_and_signalling(given: str, api: str, signalling: str) -> None:
    settings = load_settings(None, {"livekit_url": given})
    assert (settings.livekit_http_url, settings.livekit_ws_url) == (api, signalling)


@pytest.mark.parametrize(
    ("flags", "origin"),
    [
        ({"host": "::1", "port": 9000}, "http://[::1]:9000"),
        ({"public_url": "https://voice.example.com/"}, "https://voice.example.com"),
        ({"public_url": "https://example.com/voice/"}, "https://example.com/voice"),
    ],
)
def test_the_public_origin_has_no_slash_at_its_end(flags: dict[str, object], origin: str) -> None:
    assert load_settings(None, flags).public_origin == origin


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CONNECTOR_PORT", "http", "CONNECTOR_PORT: Input should be a valid integer"),
        ("CONNECTOR_PORT", "70000", "CONNECTOR_PORT: Input should be less than or equal to 65535"),
        ("CONNECTOR_CONNECT_TIMEOUT", "0", "CONNECTOR_CONNECT_TIMEOUT: Input should be greater than 0"),
        ("CONNECTOR_MAX_CALLS", "0", "CONNECTOR_MAX_CALLS: Input should be greater than or equal to 1"),
        ("CONNECTOR_LOG_LEVEL", "loud", "CONNECTOR_LOG_LEVEL: Input should be 'debug'"),
        ("CONNECTOR_STORE", "postgres://db", "CONNECTOR_STORE: must look like sqlite:///path"),
        ("CONNECTOR_STORE", "sqlite:///", "CONNECTOR_STORE: must look like sqlite:///path"),
        ("CONNECTOR_PUBLIC_URL", "voice.example.com", "CONNECTOR_PUBLIC_URL: must be a URL that starts with http"),
        ("CONNECTOR_PUBLIC_URL", "https://a.example/?x=1", "CONNECTOR_PUBLIC_URL: must be an origin"),
        ("CONNECTOR_PUBLIC_URL", "https://a.example:99999", "CONNECTOR_PUBLIC_URL: Port out of range"),
        ("LIVEKIT_URL", "127.0.0.1:7880", "LIVEKIT_URL: must be a URL that starts with"),
        ("LIVEKIT_API_SECRET", "", "LIVEKIT_API_SECRET must be set"),
    ],
)
def test_a_bad_value_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    assert problem().startswith(says)


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_PORT", "x")
    monkeypatch.setenv("CONNECTOR_MAX_CALLS", "y")
    assert [line.partition(":")[0] for line in problem().split("; ")] == ["CONNECTOR_PORT", "CONNECTOR_MAX_CALLS"]


def test_both_missing_keys_are_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    assert problem().startswith("LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be set")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot: 80\n", "keys that do not exist: prot (port?)"),
        ("maxcalls: 5\nqqqq: 1\n", "keys that do not exist: maxcalls (max_calls?), qqqq"),
        ("- port\n", "must be a mapping"),
        ("port: [\n", "is not valid YAML"),
        ("port: abc\n", "CONNECTOR_PORT: Input should be a valid integer"),
    ],
)
def test_a_bad_file_is_explained_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    told = problem(yaml(tmp_path, text))
    assert says in told
    assert "\n" not in told


def test_a_file_that_is_not_text_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "connector.yaml"
    file.write_bytes(b"\xff\xfe\x00port")
    assert "is not valid YAML" in problem(file)


def test_a_file_that_is_not_there_is_explained(tmp_path: Path) -> None:
    assert problem(tmp_path / "none.yaml") == f"cannot read {tmp_path / 'none.yaml'}: No such file or directory"


def test_a_file_may_be_a_pipe(tmp_path: Path) -> None:
    """As in `--config <(decrypt connector.yaml)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("max_calls: 7\n",))
    writer.start()
    assert load_settings(pipe).max_calls == 7
    writer.join()


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_settings(yaml(tmp_path, "# nothing yet\n")).model_dump() == load_settings().model_dump()


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "twilio-token-of-the-tests")
    shown = repr(load_settings()) + str(load_settings())
    assert KEYS["LIVEKIT_API_SECRET"] not in shown
    assert "twilio-token-of-the-tests" not in shown


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


def test_every_setting_has_one_name_for_file_and_environment() -> None:
    for name, field in Settings.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [])
        assert choices, name
        assert choices[1] == choices[0].upper()
        assert choices[0].removeprefix("connector_") == name


@pytest.mark.parametrize(
    ("store", "name"),
    [
        ("sqlite:///calls@home.db", "sqlite:///calls@home.db"),
        ("redis://redis", "redis://redis"),
        ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
        ("rediss://[::1]:6380/", "rediss://[::1]:6380/"),
        ("redis://:hidden-word@redis:6379/0", "redis://redis:6379/0"),
        ("rediss://hidden-user:hidden%40word@redis:6380", "rediss://redis:6380"),
    ],
)
def test_a_store_is_shown_without_its_user_and_password(monkeypatch: pytest.MonkeyPatch, store: str, name: str) -> None:
    monkeypatch.setenv("CONNECTOR_STORE", store)
    settings = load_settings()
    assert (settings.store, settings.store_name) == (store, name)
    assert "hidden" not in settings.store_name
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(settings)


@pytest.mark.parametrize(
    "store",
    [
        "redis://",
        "redis:///0",
        "redis://:hidden@redis:port/0",
        "redis://:hidden/word@redis:6379/0",
        "redis://:hidden#word@redis:6379/0",
        "redis://:hidden?word@redis:6379/0",
        "redis://:hidden@redis:99999",
        "redis://:hidden@redis:0",
        "redis://:hidden@redis/zero",
        "redis://:hidden@redis/0?ssl_cert_reqs=none",
        "redis://:hidden[word@redis",
        "redis+hidden://redis",
    ],
)
def test_a_store_that_cannot_be_meant_is_refused_without_quoting_it(
    monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv("CONNECTOR_STORE", store)
    told = problem()
    assert told.startswith("CONNECTOR_STORE: must look like")
    assert "hidden" not in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("peer_host: 0.0.0.0", "CONNECTOR_PEER_HOST 0.0.0.0 is not an address that other processes can use"),
        ("peer_host: '::'", "CONNECTOR_PEER_HOST"),
        ("peer_url: http://connector-1:8090", "needs a fixed CONNECTOR_PEER_PORT"),
        ("{peer_url: 'https://connector-1', peer_port: 8090, share_ports: true}", "CONNECTOR_PEER_URL needs a port"),
        ("{peer_url: 'https://connector-1', peer_port: 8090, workers: 2}", "CONNECTOR_PEER_URL needs a port"),
        ("{peer_url: 'http://a/path?x', peer_port: 8090}", "PEER_URL: must be an origin"),
    ],
)
def test_an_address_that_other_processes_cannot_use_is_refused(tmp_path: Path, settings: str, told: str) -> None:
    assert told in problem(yaml(tmp_path, settings))


def test_an_address_for_the_other_processes_may_differ_from_the_sockets(tmp_path: Path) -> None:
    text = "{peer_host: 0.0.0.0, peer_port: 8090, peer_url: 'http://connector-1:8090'}"
    assert load_settings(yaml(tmp_path, text)).peer_url == "http://connector-1:8090"
