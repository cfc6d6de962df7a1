"""Settings of the server: read once from the environment, checked together, frozen.

`SETTINGS` is the one list of them. The help of `billing-server`, the lines printed at the start and the
reading all follow it. Where several settings are wrong, ConfigError tells all of them at once.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import getaddresses
from pathlib import Path
from typing import Literal, TypeVar

LogLevel = Literal["debug", "info", "warning", "error"]
SmtpSecurity = Literal["tls", "starttls", "none"]


class ConfigError(ValueError):
    """One or more settings are wrong; each of `problems` names its variable, the rule and a way out."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: its name, its default as one would write it ("" for none), its meaning."""

    name: str
    default: str
    meaning: str


SETTINGS = (
    Setting(
        "BILLING_LISTEN",
        "127.0.0.1:50051",
        "Address and port for gRPC, as HOST:PORT or [IPV6]:PORT; port 0 takes a free one.",
    ),
    Setting(
        "BILLING_DATA_DIR",
        ".data",
        "Directory of the embedded database and of the first API key, made if it does not exist.",
    ),
    Setting(
        "BILLING_DATABASE_URL",
        "",
        "postgresql:// URL of a PostgreSQL 15 or newer. Without it, the embedded PostgreSQL is started.",
    ),
    Setting(
        "BILLING_DATABASE_CONNECTIONS",
        "10",
        "Connections to the database that one server process opens at most, 2 to 1000.",
    ),
    Setting("BILLING_TLS_CERT", "", "File with the server's certificate chain (PEM); turns TLS on."),
    Setting("BILLING_TLS_KEY", "", "File with the private key of BILLING_TLS_CERT (PEM)."),
    Setting(
        "BILLING_TLS_CLIENT_CA",
        "",
        "File with the authorities (PEM) one of which must have signed each client's certificate.",
    ),
    Setting(
        "BILLING_ALLOW_PLAINTEXT",
        "false",
        "Serve without TLS on an address that other machines can reach, say behind a proxy that ends TLS.",
    ),
    Setting(
        "BILLING_REFLECTION",
        "",
        "gRPC reflection and channelz: true or false. By default true on loopback, false elsewhere.",
    ),
    Setting("BILLING_WORKERS", "1", "Server processes that share the port, 1 to 64."),
    Setting("BILLING_LOG_LEVEL", "info", "debug, info, warning or error."),
    Setting(
        "BILLING_GATEWAY_TARGET",
        "",
        "HOST:PORT of your own billing.gateway.v1.PaymentGateway. Without it, the built-in test gateway.",
    ),
    Setting(
        "BILLING_GATEWAY_TLS",
        "",
        "TLS towards BILLING_GATEWAY_TARGET: true or false. By default false on loopback, true elsewhere.",
    ),
    Setting("BILLING_GATEWAY_CA", "", "File with the authorities (PEM) that vouch for the gateway; else the system's."),
    Setting("BILLING_GATEWAY_CERT", "", "File with the certificate chain (PEM) that the engine shows the gateway."),
    Setting("BILLING_GATEWAY_KEY", "", "File with the private key of BILLING_GATEWAY_CERT (PEM)."),
    Setting(
        "BILLING_SMTP_HOST",
        "",
        "SMTP server for e-mail. Without it, messages are written as .eml files into mail/ of the data directory.",
    ),
    Setting("BILLING_SMTP_PORT", "", "Its port; by default 465 with TLS from the start, 587 with STARTTLS, else 25."),
    Setting(
        "BILLING_SMTP_TLS",
        "",
        "tls (from the start), starttls, or none. By default none on loopback, starttls elsewhere.",
    ),
    Setting("BILLING_SMTP_USER", "", "User to log in as; needs BILLING_SMTP_PASSWORD."),
    Setting("BILLING_SMTP_PASSWORD", "", "Password of BILLING_SMTP_USER."),
    Setting(
        "BILLING_SMTP_FROM",
        "",
        "Sender of e-mail: billing@shop.example, or Shop <billing@shop.example>. Needed with BILLING_SMTP_HOST.",
    ),
    Setting(
        "BILLING_SMTP_TEST_CLOCKS",
        "false",
        "Send e-mail of customers on test clocks, too. Otherwise it is written into mail/ of the data directory.",
    ),
    Setting(
        "BILLING_WEBHOOK_ALLOW_PRIVATE",
        "false",
        "Send webhooks also by http and to loopback and private addresses. For development: it lets callers reach "
        "whatever the server can reach.",
    ),
    Setting(
        "BILLING_METRICS_LISTEN",
        "",
        "HOST:PORT for Prometheus metrics over HTTP; each further worker takes the next port. Off without it.",
    ),
    Setting(
        "BILLING_MAX_DEADLINE_SECONDS",
        "30",
        "Longest time a unary call may take, 1 to 3600; also that of a caller who sets no deadline.",
    ),
    Setting("BILLING_MAX_STREAMS", "1000", "Event streams open at once in one process, 1 to 100000."),
    Setting(
        "BILLING_DRAIN_SECONDS",
        "10",
        "Time that calls in progress get to finish when the server is told to stop, 0 to 600.",
    ),
)

_DEFAULTS: Mapping[str, str] = {setting.name: setting.default for setting in SETTINGS}
Value = TypeVar("Value")
Fallback = TypeVar("Fallback")

_PORT_MAX = 65_535
_SMTP_PORTS: Mapping[SmtpSecurity, int] = {"tls": 465, "starttls": 587, "none": 25}
_MAIL_ADDRESS = re.compile(r"[^\s@<>,;\"]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_YES = ("true", "1", "yes", "on")
_NO = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: a host name or IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that the server shows itself and checks its clients with."""

    certificate_file: Path
    key_file: Path
    client_authorities_file: Path | None


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """Files that the gateway is checked with, and that the engine shows it."""

    authorities_file: Path | None
    certificate_file: Path | None
    key_file: Path | None


@dataclass(frozen=True, slots=True)
class Smtp:
    """How e-mail is sent."""

    address: Address
    security: SmtpSecurity
    user: str | None
    password: str | None = field(repr=False)
    test_clocks: bool


@dataclass(frozen=True, slots=True)
class MailSender:
    """Whom e-mail is from; without a name, each message bears that of its company."""

    address: str
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings, checked. Make one with `Config.from_environment`."""

    listen: Address
    data_directory: Path
    database_url: str | None
    database_connections: int
    tls: Tls | None
    allow_plaintext: bool
    reflection: bool
    workers: int
    log_level: LogLevel
    gateway_target: Address | None
    gateway_tls: GatewayTls | None
    smtp: Smtp | None
    mail_sender: MailSender
    webhook_allow_private: bool
    metrics_listen: Address | None
    deadline_seconds_max: int
    streams_max: int
    drain_seconds: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read the settings; an empty value counts as unset. Raises ConfigError with all that is wrong."""
        reader = _Reader(environment)
        listen = reader.address("BILLING_LISTEN") or Address("127.0.0.1", 0)
        tls = _read_tls(reader)
        allow_plaintext = bool(reader.flag("BILLING_ALLOW_PLAINTEXT"))
        reflection = reader.flag("BILLING_REFLECTION")
        gateway_target = reader.address("BILLING_GATEWAY_TARGET")
        config = cls(
            listen=listen,
            data_directory=Path(reader.text("BILLING_DATA_DIR") or ".").expanduser().absolute(),
            database_url=_read_database_url(reader),
            database_connections=reader.number("BILLING_DATABASE_CONNECTIONS", 2, 1_000),
            tls=tls,
            allow_plaintext=allow_plaintext,
            reflection=listen.is_loopback if reflection is None else reflection,
            workers=reader.number("BILLING_WORKERS", 1, 64),
            log_level=_read_log_level(reader),
            gateway_target=gateway_target,
            gateway_tls=_read_gateway_tls(reader, gateway_target),
            smtp=_read_smtp(reader),
            mail_sender=_read_mail_sender(reader),
            webhook_allow_private=bool(reader.flag("BILLING_WEBHOOK_ALLOW_PRIVATE")),
            metrics_listen=reader.address("BILLING_METRICS_LISTEN"),
            deadline_seconds_max=reader.number("BILLING_MAX_DEADLINE_SECONDS", 1, 3600),
            streams_max=reader.number("BILLING_MAX_STREAMS", 1, 100_000),
            drain_seconds=reader.number("BILLING_DRAIN_SECONDS", 0, 600),
        )
        if tls is None and not listen.is_loopback and not allow_plaintext:
            reader.refuse(
                "BILLING_LISTEN",
                f"{listen} can be reached from other machines, and API keys would travel in plaintext. Set "
                "BILLING_TLS_CERT and BILLING_TLS_KEY, listen on 127.0.0.1, or set "
                "BILLING_ALLOW_PLAINTEXT=true where something in front ends TLS.",
            )
        if listen.port == 0 and config.workers > 1:
            reader.refuse(
                "BILLING_LISTEN",
                "port 0 gives each process a port of its own, but BILLING_WORKERS is above 1. Name a port.",
            )
        if config.metrics_listen is not None and config.metrics_listen.port + config.workers - 1 > _PORT_MAX:
            reader.refuse(
                "BILLING_METRICS_LISTEN",
                f"each of {config.workers} workers takes a port from {config.metrics_listen.port} on, and there are "
                "not so many. Name a lower port.",
            )
        if reader.problems:
            raise ConfigError(reader.problems)
        return config

    def describe(self) -> list[str]:
        """The settings in force, a line each, without secrets."""
        values = {
            "listen": f"{self.listen} ({self._describe_tls()})",
            "data directory": str(self.data_directory),
            "database": _without_secrets(self.database_url) if self.database_url else "embedded PostgreSQL",
            "connections": f"{self.database_connections} at most in each process",
            "payment gateway": self._describe_gateway(),
            "e-mail": str(self.smtp.address) if self.smtp else f"files in {self.data_directory / 'mail'}",
            "webhooks": "anywhere, for development" if self.webhook_allow_private else "public https only",
            "reflection": "on" if self.reflection else "off",
            "metrics": str(self.metrics_listen or "off"),
            "worker processes": str(self.workers),
            "log level": self.log_level,
            "longest call": f"{self.deadline_seconds_max} s",
            "event streams": f"{self.streams_max} at most",
            "drain": f"{self.drain_seconds} s",
        }
        width = max(map(len, values))
        return [f"{name:<{width}}  {value}" for name, value in values.items()]

    def _describe_gateway(self) -> str:
        if self.gateway_target is None:
            return "built-in test gateway"
        return f"{self.gateway_target} ({'plaintext' if self.gateway_tls is None else 'TLS'})"

    def _describe_tls(self) -> str:
        if self.tls is None:
            return "plaintext"
        return "TLS, clients need a certificate" if self.tls.client_authorities_file else "TLS"


def help_text() -> str:
    """All settings with their defaults and meanings, for `billing-server --help`."""
    entries = []
    for setting in SETTINGS:
        default = f" (default {setting.default})" if setting.default else ""
        entries.append(f"  {setting.name}{default}\n      {setting.meaning}")
    return "Settings, read from the environment:\n\n" + "\n".join(entries)


class _Reader:
    """Reads single values and collects what is wrong with them.

    A wrong value is answered by its default, which only lets the reading go on: ConfigError follows.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def refuse(self, name: str, problem: str) -> None:
        self.problems.append(f"{name}: {problem}")

    def text(self, name: str) -> str:
        return self._environment.get(name, "").strip() or _DEFAULTS[name]

    def flag(self, name: str) -> bool | None:
        return self._parsed(name, _parse_flag, False, "write true or false") if self.text(name) else None

    def number(self, name: str, lowest: int, highest: int) -> int:
        def parse(text: str) -> int:
            value = int(text)
            if not lowest <= value <= highest:
                raise ValueError(value)
            return value

        return self._parsed(name, parse, lowest, f"write a whole number from {lowest} to {highest}")

    def address(self, name: str) -> Address | None:
        way_out = "write HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"
        return self._parsed(name, _parse_address, None, way_out) if self.text(name) else None

    def file(self, name: str) -> Path | None:
        if not (text := self.text(name)):
            return None
        path = Path(text).expanduser().absolute()
        try:
            with path.open("rb"):
                return path
        except OSError as error:
            self.refuse(name, f"{path} cannot be read ({error.strerror}). Name a PEM file that the server may read.")
            return path

    def _parsed(self, name: str, parse: Callable[[str], Value], fallback: Fallback, way_out: str) -> Value | Fallback:
        text = self.text(name)
        try:
            return parse(text)
        except ValueError:
            self.refuse(name, f"{text!r} is not understood: {way_out}.")
            return fallback


def _parse_flag(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(text)


def _parse_address(text: str) -> Address:
    parts = urllib.parse.urlsplit(f"//{text}")
    if parts.hostname is None or parts.port is None or parts.netloc != text or parts.username is not None:
        raise ValueError(text)
    if ":" in parts.hostname:
        ipaddress.IPv6Address(parts.hostname)
    return Address(parts.hostname, parts.port)


def _read_tls(reader: _Reader) -> Tls | None:
    certificate = reader.file("BILLING_TLS_CERT")
    key = reader.file("BILLING_TLS_KEY")
    client_authorities = reader.file("BILLING_TLS_CLIENT_CA")
    if certificate is not None and key is not None:
        return Tls(certificate, key, client_authorities)
    if certificate is not None:
        reader.refuse("BILLING_TLS_KEY", "BILLING_TLS_CERT needs its private key. Set both, or neither.")
    elif key is not None:
        reader.refuse("BILLING_TLS_CERT", "BILLING_TLS_KEY needs its certificate. Set both, or neither.")
    elif client_authorities is not None:
        reader.refuse(
            "BILLING_TLS_CLIENT_CA",
            "clients show certificates only over TLS. Set BILLING_TLS_CERT and BILLING_TLS_KEY, too.",
        )
    return None


def _read_gateway_tls(reader: _Reader, target: Address | None) -> GatewayTls | None:
    wanted = reader.flag("BILLING_GATEWAY_TLS")
    authorities = reader.file("BILLING_GATEWAY_CA")
    certificate = reader.file("BILLING_GATEWAY_CERT")
    key = reader.file("BILLING_GATEWAY_KEY")
    if (certificate is None) != (key is None):
        reader.refuse("BILLING_GATEWAY_CERT", "it and BILLING_GATEWAY_KEY need each other. Set both, or neither.")
    if target is None:
        return None
    if wanted is None:
        wanted = not target.is_loopback or authorities is not None or certificate is not None
    return GatewayTls(authorities, certificate, key) if wanted else None


def _read_smtp(reader: _Reader) -> Smtp | None:
    user, password = reader.text("BILLING_SMTP_USER") or None, reader.text("BILLING_SMTP_PASSWORD") or None
    test_clocks = bool(reader.flag("BILLING_SMTP_TEST_CLOCKS"))
    host = reader.text("BILLING_SMTP_HOST")
    if (user is None) != (password is None):
        reader.refuse("BILLING_SMTP_USER", "it and BILLING_SMTP_PASSWORD need each other. Set both, or neither.")
    if not host:
        return None
    if not reader.text("BILLING_SMTP_FROM"):
        reader.refuse("BILLING_SMTP_FROM", "BILLING_SMTP_HOST needs a sender. Set it, such as billing@shop.example.")
    security = _read_smtp_security(reader, Address(host, 0))
    port = _SMTP_PORTS[security]
    if reader.text("BILLING_SMTP_PORT"):
        port = reader.number("BILLING_SMTP_PORT", 1, _PORT_MAX)
    address = Address(host, port)
    if security == "none" and password is not None and not address.is_loopback:
        reader.refuse(
            "BILLING_SMTP_TLS", "the password would travel in plaintext. Set tls or starttls, or log in without one."
        )
    return Smtp(address, security, user, password, test_clocks)


def _read_smtp_security(reader: _Reader, address: Address) -> SmtpSecurity:
    name = "BILLING_SMTP_TLS"
    match reader.text(name).lower():
        case "":
            return "none" if address.is_loopback else "starttls"
        case "tls" | "starttls" | "none" as security:
            return security
        case other:
            reader.refuse(name, f"{other!r} is not understood: write tls, starttls or none.")
            return "starttls"


def _read_mail_sender(reader: _Reader) -> MailSender:
    text = reader.text("BILLING_SMTP_FROM") or "billing@localhost"
    found = getaddresses([text])
    name, address = found[0]
    if len(found) != 1 or not _MAIL_ADDRESS.fullmatch(address):
        way_out = "write billing@shop.example or Shop <billing@shop.example>"
        reader.refuse("BILLING_SMTP_FROM", f"{text!r} is not understood: {way_out}.")
    return MailSender(address, name or None)


def _read_database_url(reader: _Reader) -> str | None:
    name = "BILLING_DATABASE_URL"
    url = reader.text(name)
    if not url:
        return None
    # The value may hold a password: it is never quoted.
    try:
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("postgresql", "postgres"):
        reader.refuse(
            name,
            "the value is no PostgreSQL URL. Write postgresql://USER:PASSWORD@HOST:5432/DATABASE, or leave "
            "it unset for the embedded PostgreSQL.",
        )
    return url


def _read_log_level(reader: _Reader) -> LogLevel:
    name = "BILLING_LOG_LEVEL"
    match reader.text(name).lower():
        case "debug" | "info" | "warning" | "error" as level:
            return level
        case other:
            reader.refuse(name, f"{other!r} is not understood: write debug, info, warning or error.")
            return "info"


def _without_secrets(database_url: str) -> str:
    """The URL's scheme, user, hosts and database; passwords stand before the last @ or in the query."""
    parts = urllib.parse.urlsplit(database_url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{parts.scheme}://{user}{at}{hosts}{parts.path}"
