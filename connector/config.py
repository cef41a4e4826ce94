"""The settings of an operator, checked, and the values derived from them. `connector.config_sources` reads them.

Every key has one name: `LIVEKIT_URL` in the environment is `livekit_url` in the file. Secrets are
`SecretStr`, so neither a log line nor a traceback prints them.
"""

from __future__ import annotations

import os
import re
import socket
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from connector.accounts import listed
from connector.numbers import E164
from connector.urls import bracketed, origin, redis_url

_SIP_ENDPOINT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:;[A-Za-z0-9-]+=[A-Za-z0-9.-]+)*")
Seconds = Annotated[float, Field(gt=0)]
DAY = 86400
_EVERY_ADDRESS = ("0.0.0.0", "::", "[::]", "*")


def _several(value: Any) -> Any:
    """Accepts one secret as a string, or a list with the newest first."""
    if isinstance(value, str):
        return [value]
    return value


Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_several), Field(min_length=1, max_length=4)]
"""One secret, or several during a rotation, newest first."""


class TelnyxAccount(BaseModel):
    """Telnyx has two credentials: one key pair signs its webhooks, an API key gives access to its REST API."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_key: Annotated[tuple[str, ...], BeforeValidator(_several), Field(max_length=4)] = ()
    api_key: Annotated[tuple[SecretStr, ...], BeforeValidator(_several), Field(max_length=4)] = ()

    @field_validator("public_key")
    @classmethod
    def _public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            _check_public_key(key)
        return value


def _env(name: str) -> AliasChoices:
    return AliasChoices(name.lower(), name)


class Settings(BaseSettings):
    """All settings of an operator. Times are seconds and sizes are bytes, unless the name says otherwise."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    livekit_url: str = Field("ws://127.0.0.1:7880", validation_alias=_env("LIVEKIT_URL"))
    livekit_api_key: str = Field("", validation_alias=_env("LIVEKIT_API_KEY"))
    livekit_api_secret: SecretStr = Field(SecretStr(""), validation_alias=_env("LIVEKIT_API_SECRET"))
    api_keys: dict[str, SecretStr] = Field({}, validation_alias=_env("CONNECTOR_API_KEYS"), repr=False)
    """API key -> secret, for additional clients of this service. Requests to LiveKit use `livekit_api_key`."""
    secret: SecretStr = Field(SecretStr(""), validation_alias=_env("CONNECTOR_SECRET"))
    """Signs connect_urls and webhook URLs, and seals secrets in the store; empty: LiveKit's API secret is used."""
    secret_previous: SecretStr = Field(SecretStr(""), validation_alias=_env("CONNECTOR_SECRET_PREVIOUS"))
    """The secret before a rotation: its URLs are still accepted, and it opens values that it has sealed."""

    host: str = Field("127.0.0.1", validation_alias=_env("CONNECTOR_HOST"))
    port: int = Field(8080, ge=0, le=65535, validation_alias=_env("CONNECTOR_PORT"))
    grpc_port: int = Field(8081, ge=0, le=65535, validation_alias=_env("CONNECTOR_GRPC_PORT"))
    public_url: str = Field("", validation_alias=_env("CONNECTOR_PUBLIC_URL"))
    regions: dict[str, str] = Field({}, validation_alias=_env("CONNECTOR_REGIONS"))
    """Region name -> public origin that serves it."""
    countries: dict[str, str] = Field({}, validation_alias=_env("CONNECTOR_COUNTRIES"))
    """Country code (ISO 3166-1 alpha-2) -> region name."""
    store: str = Field("sqlite:///connector.db", validation_alias=_env("CONNECTOR_STORE"), repr=False)
    """URL of the store. It may contain a password: show `store_name` instead."""
    redis_prefix: str = Field("connector:", validation_alias=_env("CONNECTOR_REDIS_PREFIX"))
    """Prefix of all keys in Redis."""
    instance: str = Field("", validation_alias=_env("CONNECTOR_INSTANCE"))
    """Name of this process in call records. Processes that share a store need different names."""

    workers: Annotated[int, Field(ge=1, le=256)] = Field(1, validation_alias=_env("CONNECTOR_WORKERS"))
    """Number of processes that serve; more than one have a supervisor. `auto`: one for each core."""
    share_ports: bool = Field(False, validation_alias=_env("CONNECTOR_SHARE_PORTS"))
    """Other processes on this machine may listen on the same ports; the system distributes the connections."""
    worker_max_calls: int = Field(0, ge=0, validation_alias=_env("CONNECTOR_WORKER_MAX_CALLS"))
    """After so many calls a worker gets a successor. 0: never."""
    worker_max_memory: float = Field(0, ge=0, validation_alias=_env("CONNECTOR_WORKER_MAX_MEMORY"))
    """Above so many megabytes of resident memory a worker gets a successor. 0: never."""
    peer_host: str = Field("127.0.0.1", min_length=1, validation_alias=_env("CONNECTOR_PEER_HOST"))
    """Where this process answers the other processes that share the store."""
    peer_port: int = Field(0, ge=0, le=65535, validation_alias=_env("CONNECTOR_PEER_PORT"))
    """0: any free port."""
    peer_url: str = Field("", validation_alias=_env("CONNECTOR_PEER_URL"))
    """The address of that for the other processes; empty: peer_host and the port."""

    connect_timeout: Seconds = Field(90, validation_alias=_env("CONNECTOR_CONNECT_TIMEOUT"))
    answer_grace: Seconds = Field(30, validation_alias=_env("CONNECTOR_ANSWER_GRACE"))
    """After the carrier fetches its XML, the stream has at least this long to open."""
    media_timeout: Seconds = Field(30, validation_alias=_env("CONNECTOR_MEDIA_TIMEOUT"))
    max_audio_age: Annotated[float, Field(ge=0.2, le=10)] = Field(1, validation_alias=_env("CONNECTOR_MAX_AUDIO_AGE"))
    """The caller's audio is sent to the room only if it is not older than this."""
    reconnect_timeout: Seconds = Field(20, validation_alias=_env("CONNECTOR_RECONNECT_TIMEOUT"))
    """Time limit for the reconnection to LiveKit after a connection is lost."""
    resume_grace: float = Field(5, ge=0, le=60, validation_alias=_env("CONNECTOR_RESUME_GRACE"))
    """How long a lost media stream may take to come back; 0: a lost stream ends the call."""
    max_duration: Seconds = Field(4 * 3600, validation_alias=_env("CONNECTOR_MAX_DURATION"))
    agent_warn_after: float = Field(5, ge=0, le=DAY, validation_alias=_env("CONNECTOR_AGENT_WARN_AFTER"))
    """If an answered call has no agent for this long, log a warning and dispatch the agent again. 0: never."""
    agent_timeout: float = Field(30, ge=0, le=DAY, validation_alias=_env("CONNECTOR_AGENT_TIMEOUT"))
    """If an answered call has nobody to talk to for this long, it ends with `no_agent`. 0: never."""
    room_empty_timeout: float = Field(10, ge=0, le=DAY, validation_alias=_env("CONNECTOR_ROOM_EMPTY_TIMEOUT"))
    """Time from the departure of the last agent or person until the call ends with `room_empty`. 0: never."""
    fallback_agent: str = Field("", max_length=256, validation_alias=_env("CONNECTOR_FALLBACK_AGENT"))
    """The agent to dispatch before a call ends with `no_agent`."""
    fallback_number: str = Field("", validation_alias=_env("CONNECTOR_FALLBACK_NUMBER"))
    """The number to transfer the phone to before a call ends with `no_agent`."""
    no_agent_message: str = Field("", max_length=4096, validation_alias=_env("CONNECTOR_NO_AGENT_MESSAGE"))
    """The sentence that the phone hears before a call ends with `no_agent`."""
    handover: Literal["after_drain", "at_once"] = Field("after_drain", validation_alias=_env("CONNECTOR_HANDOVER"))
    """When a process that stops hands its calls over to another one: after the drain timeout, or at once."""
    drain_timeout: float = Field(30, ge=0, validation_alias=_env("CONNECTOR_DRAIN_TIMEOUT"))
    max_waiting_per_connector: int = Field(50, ge=1, validation_alias=_env("CONNECTOR_MAX_WAITING_PER_CONNECTOR"))
    """Maximum number of calls per connector, in this process, that wait for their stream."""
    transfer_timeout: int = Field(30, ge=5, le=600, validation_alias=_env("CONNECTOR_TRANSFER_TIMEOUT"))
    """Ringing time of the number to which a call is transferred."""
    transfer_failed_sentence: str = Field(
        "", max_length=4096, validation_alias=_env("CONNECTOR_TRANSFER_FAILED_SENTENCE")
    )
    """The sentence that the phone hears after a failed transfer, before the hang-up; empty: it returns to its room."""
    max_calls: int = Field(200, ge=1, validation_alias=_env("CONNECTOR_MAX_CALLS"))
    joins_at_once: int = Field(8, ge=1, validation_alias=_env("CONNECTOR_JOINS_AT_ONCE"))
    join_wait: Seconds = Field(8, validation_alias=_env("CONNECTOR_JOIN_WAIT"))
    """Maximum time that a call may queue to join LiveKit; a call that would wait longer is refused at once."""
    greeting: str = Field(
        "This is LiveKit Twilio Connector", max_length=4096, validation_alias=_env("CONNECTOR_GREETING")
    )

    twilio_account_sid: str = Field("", validation_alias=_env("TWILIO_ACCOUNT_SID"))
    twilio_auth_token: SecretStr = Field(SecretStr(""), validation_alias=_env("TWILIO_AUTH_TOKEN"))
    twilio_accounts: dict[str, Secrets] = Field({}, validation_alias=_env("TWILIO_ACCOUNTS"), repr=False)
    """AccountSid -> auth token, or a list with the new and the old token."""
    twilio_api_url: str = Field("https://api.twilio.com", validation_alias=_env("TWILIO_API_URL"))

    sip_endpoint: str = Field("", validation_alias=_env("CONNECTOR_SIP_ENDPOINT"))
    """Host of LiveKit SIP that Twilio can reach: `sip.example.com`, optionally with a port and parameters."""
    sip_conferences: str = Field("", max_length=256, validation_alias=_env("CONNECTOR_SIP_CONFERENCES"))
    """Pattern of the friendly names of conferences to bridge automatically, such as `support-*`; empty: none."""

    sip_attributes: bool = Field(False, validation_alias=_env("CONNECTOR_SIP_ATTRIBUTES"))
    """Whether callers also get the attributes of LiveKit SIP, for agents that were written for SIP."""

    webhook_allow_private: bool = Field(False, validation_alias=_env("CONNECTOR_WEBHOOK_ALLOW_PRIVATE"))
    """Whether lifecycle webhooks may be sent to private, loopback and link-local addresses."""

    allow_unsigned_webhooks: bool = Field(False, validation_alias=_env("CONNECTOR_ALLOW_UNSIGNED_WEBHOOKS"))
    """Development only: allow connectors for carriers that have no key to verify their signatures."""

    telnyx_public_key: str = Field("", validation_alias=_env("TELNYX_PUBLIC_KEY"))
    """Base64, as Telnyx's portal shows it. It verifies Telnyx's webhooks."""
    telnyx_api_key: SecretStr = Field(SecretStr(""), validation_alias=_env("TELNYX_API_KEY"))
    telnyx_accounts: dict[str, TelnyxAccount] = Field({}, validation_alias=_env("TELNYX_ACCOUNTS"), repr=False)
    """Account id -> keys; each key may be a list with the new and the old one."""
    telnyx_api_url: str = Field("https://api.telnyx.com", validation_alias=_env("TELNYX_API_URL"))
    telnyx_codec: Literal["PCMU", "PCMA", "L16"] = Field("PCMU", validation_alias=_env("CONNECTOR_TELNYX_CODEC"))
    """Codec that we request from Telnyx, for both directions."""
    telnyx_poll_seconds: int = Field(0, ge=0, le=600, validation_alias=_env("TELNYX_POLL_SECONDS"))
    """Interval in which Telnyx asks how a live call goes on. 0: one second without TELNYX_API_KEY, ten with it."""
    telnyx_connect_stream: bool = Field(False, validation_alias=_env("TELNYX_CONNECT_STREAM"))
    """Stream with `<Connect>` instead of `<Start>`: Telnyx follows the next verb when the stream has ended."""
    plivo_auth_id: str = Field("", validation_alias=_env("PLIVO_AUTH_ID"))
    plivo_auth_token: SecretStr = Field(SecretStr(""), validation_alias=_env("PLIVO_AUTH_TOKEN"))
    plivo_accounts: dict[str, Secrets] = Field({}, validation_alias=_env("PLIVO_ACCOUNTS"), repr=False)
    """Auth id -> auth token, or a list with the new and the old token."""
    plivo_api_url: str = Field("https://api.plivo.com", validation_alias=_env("PLIVO_API_URL"))
    plivo_codec: Literal["audio/x-mulaw;rate=8000", "audio/x-l16;rate=8000", "audio/x-l16;rate=16000"] = Field(
        "audio/x-mulaw;rate=8000", validation_alias=_env("CONNECTOR_PLIVO_CODEC")
    )
    """Content type that we request from Plivo, for both directions."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_env("CONNECTOR_LOG_LEVEL")
    )
    log_format: Literal["auto", "pretty", "json"] = Field("auto", validation_alias=_env("CONNECTOR_LOG_FORMAT"))
    keep_calls_days: Annotated[float, NoDecode] = Field(30, gt=0, validation_alias=_env("CONNECTOR_KEEP_CALLS_DAYS"))

    @field_validator("workers", mode="before")
    @classmethod
    def _workers(cls, value: object) -> object:
        if value != "auto":
            return value
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @field_validator("livekit_url")
    @classmethod
    def _livekit_url(cls, value: str) -> str:
        return origin(value, {"ws", "wss", "http", "https"})

    @field_validator("twilio_api_url", "telnyx_api_url", "plivo_api_url")
    @classmethod
    def _api_url(cls, value: str) -> str:
        return origin(value, {"http", "https"})

    @field_validator("sip_endpoint")
    @classmethod
    def _sip_endpoint(cls, value: str) -> str:
        endpoint = value.strip().removeprefix("sip:")
        if endpoint and not _SIP_ENDPOINT.fullmatch(endpoint):
            raise ValueError("must be the host of your LiveKit SIP, such as sip.example.com or sip.example.com:5060")
        return endpoint

    @field_validator("fallback_number")
    @classmethod
    def _fallback_number(cls, value: str) -> str:
        if value and not E164.fullmatch(value):
            raise ValueError("must be a number in E.164 form such as +15551234567")
        return value

    @field_validator("public_url", "peer_url")
    @classmethod
    def _optional_url(cls, value: str) -> str:
        return origin(value, {"http", "https"}) if value else value

    @field_validator("telnyx_public_key")
    @classmethod
    def _telnyx_public_key(cls, value: str) -> str:
        for key in listed(value):
            _check_public_key(key)
        return value

    @field_validator("twilio_accounts", "telnyx_accounts", "plivo_accounts")
    @classmethod
    def _account_ids(cls, value: dict[str, Any]) -> dict[str, Any]:
        if wrong := [name for name in value if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)]:
            raise ValueError(f"{', '.join(map(repr, wrong))}: must be account ids, letters and digits")
        return value

    @field_validator("regions")
    @classmethod
    def _regions(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: origin(url, {"http", "https"}) for name, url in value.items()}

    @field_validator("countries")
    @classmethod
    def _countries(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = [country for country in value if not (len(country) == 2 and country.isascii() and country.isalpha())]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: must be ISO 3166-1 alpha-2 codes such as US")
        return {country.upper(): region for country, region in value.items()}

    @field_validator("api_keys")
    @classmethod
    def _api_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if not all(name and secret.get_secret_value() for name, secret in value.items()):
            raise ValueError("must map API keys to their secrets; neither may be empty")
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _redis_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.:{}-]{1,64}", value):
            raise ValueError("must be 1 to 64 letters, digits and _ . : { } -")
        return value

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value.startswith(("redis://", "rediss://")):
            return redis_url(value)
        if not value.startswith("sqlite:///") or value == "sqlite:///":
            raise ValueError("must look like sqlite:///path or redis://:password@host:6379/0")
        return value

    @model_validator(mode="after")
    def _regions_of_countries(self) -> Settings:
        unknown = sorted(set(self.countries.values()) - set(self.regions))
        if unknown:
            raise ValueError(f"CONNECTOR_COUNTRIES has regions that are not in CONNECTOR_REGIONS: {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _peer_address(self) -> Settings:
        if self.peer_host in _EVERY_ADDRESS and not self.peer_url:
            raise ValueError(
                f"CONNECTOR_PEER_HOST {self.peer_host} is not an address that other processes can use: give one, or "
                "set CONNECTOR_PEER_URL too"
            )
        if self.peer_url and not self.peer_port:
            raise ValueError("CONNECTOR_PEER_URL needs a fixed CONNECTOR_PEER_PORT")
        if self.peer_url and (self.share_ports or self.has_supervisor) and not urlsplit(self.peer_url).port:
            raise ValueError("CONNECTOR_PEER_URL needs a port, because each worker has one of its own")
        return self

    @model_validator(mode="after")
    def _credentials(self) -> Settings:
        missing = [
            name
            for name, value in (
                ("LIVEKIT_API_KEY", self.livekit_api_key),
                ("LIVEKIT_API_SECRET", self.livekit_api_secret.get_secret_value()),
            )
            if not value
        ]
        if missing:
            raise ValueError(f"{' and '.join(missing)} must be set: the key and secret of your livekit-server")
        return self

    @property
    def own_secrets(self) -> tuple[str, ...]:
        """Secrets of this service, newest first."""
        newest = self.secret.get_secret_value() or self.livekit_api_secret.get_secret_value()
        return tuple(dict.fromkeys(filter(None, (newest, self.secret_previous.get_secret_value()))))

    @property
    def client_secrets(self) -> dict[str, str]:
        """Additional API keys -> secrets."""
        return {name: secret.get_secret_value() for name, secret in self.api_keys.items()}

    @property
    def public_origin(self) -> str:
        """The origin that carriers reach, without a trailing slash."""
        return self.public_url or f"http://{bracketed(self.host)}:{self.port}"

    @property
    def store_name(self) -> str:
        """The store without its user and password."""
        head, _, place = self.store.rpartition("@")
        return f"{self.store.partition('://')[0]}://{place}" if head and self.store.startswith("redis") else self.store

    @property
    def store_file(self) -> Path | None:
        """The absolute path of a SQLite store; None for Redis."""
        return Path(self.store.removeprefix("sqlite:///")).absolute() if self.store.startswith("sqlite") else None

    @property
    def store_place(self) -> str:
        """The absolute path of the store, or its URL without user and password."""
        return str(self.store_file or self.store_name)

    @property
    def livekit_http_url(self) -> str:
        """LiveKit's API origin: `ws` becomes `http`, `wss` `https`."""
        return "http" + self.livekit_url[2:] if self.livekit_url.startswith("ws") else self.livekit_url

    @property
    def livekit_ws_url(self) -> str:
        """LiveKit's signalling origin: `http` becomes `ws`, `https` `wss`."""
        return "ws" + self.livekit_url[4:] if self.livekit_url.startswith("http") else self.livekit_url

    @property
    def has_supervisor(self) -> bool:
        """Whether `connector serve` starts workers instead of serving itself."""
        return self.workers > 1 or bool(self.worker_max_calls or self.worker_max_memory)

    @property
    def owner(self) -> str:
        return self.instance or f"{socket.gethostname()}:{self.port}"


def _check_public_key(text: str) -> None:
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("must be the base64 of a 32 byte Ed25519 key, as Telnyx's portal shows it")
