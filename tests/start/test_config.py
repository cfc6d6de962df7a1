"""Settings from the environment: defaults, every rule, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing_server.config import SETTINGS, Address, Config, ConfigError, GatewayTls, MailSender, Smtp, Tls, help_text


def problems_of(environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_environment(environment)
    return caught.value.problems


def test_defaults() -> None:
    config = Config.from_environment({})
    assert config == Config(
        listen=Address("127.0.0.1", 50051),
        data_directory=Path(".data").absolute(),
        database_url=None,
        database_connections=10,
        tls=None,
        allow_plaintext=False,
        reflection=True,
        workers=1,
        log_level="info",
        gateway_target=None,
        gateway_tls=None,
        smtp=None,
        mail_sender=MailSender("billing@localhost", None),
        webhook_allow_private=False,
        metrics_listen=None,
        deadline_seconds_max=30,
        streams_max=1000,
        drain_seconds=10,
    )


def test_everything_set(tmp_path: Path) -> None:
    for name in ("server.pem", "server.key", "clients.pem", "gateway.pem", "engine.pem", "engine.key"):
        (tmp_path / name).touch()
    config = Config.from_environment(
        {
            "BILLING_LISTEN": "[::]:443",
            "BILLING_DATA_DIR": str(tmp_path),
            "BILLING_DATABASE_URL": "postgresql://engine:secret@db.example:5432/billing",
            "BILLING_DATABASE_CONNECTIONS": "200",
            "BILLING_TLS_CERT": str(tmp_path / "server.pem"),
            "BILLING_TLS_KEY": str(tmp_path / "server.key"),
            "BILLING_TLS_CLIENT_CA": str(tmp_path / "clients.pem"),
            "BILLING_ALLOW_PLAINTEXT": "no",
            "BILLING_REFLECTION": "on",
            "BILLING_WORKERS": "4",
            "BILLING_LOG_LEVEL": "DEBUG",
            "BILLING_GATEWAY_TARGET": "payments.example:9000",
            "BILLING_GATEWAY_CA": str(tmp_path / "gateway.pem"),
            "BILLING_GATEWAY_CERT": str(tmp_path / "engine.pem"),
            "BILLING_GATEWAY_KEY": str(tmp_path / "engine.key"),
            "BILLING_SMTP_HOST": "mail.example",
            "BILLING_SMTP_PORT": "2525",
            "BILLING_SMTP_TLS": "TLS",
            "BILLING_SMTP_USER": "engine",
            "BILLING_SMTP_PASSWORD": "secret",
            "BILLING_SMTP_FROM": "Shop <billing@shop.example>",
            "BILLING_SMTP_TEST_CLOCKS": "true",
            "BILLING_WEBHOOK_ALLOW_PRIVATE": "yes",
            "BILLING_METRICS_LISTEN": "127.0.0.1:9100",
            "BILLING_MAX_DEADLINE_SECONDS": "3600",
            "BILLING_MAX_STREAMS": "20",
            "BILLING_DRAIN_SECONDS": "0",
        }
    )
    assert config == Config(
        listen=Address("::", 443),
        data_directory=tmp_path,
        database_url="postgresql://engine:secret@db.example:5432/billing",
        database_connections=200,
        tls=Tls(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "clients.pem"),
        allow_plaintext=False,
        reflection=True,
        workers=4,
        log_level="debug",
        gateway_target=Address("payments.example", 9000),
        gateway_tls=GatewayTls(tmp_path / "gateway.pem", tmp_path / "engine.pem", tmp_path / "engine.key"),
        smtp=Smtp(Address("mail.example", 2525), "tls", "engine", "secret", True),
        mail_sender=MailSender("billing@shop.example", "Shop"),
        webhook_allow_private=True,
        metrics_listen=Address("127.0.0.1", 9100),
        deadline_seconds_max=3600,
        streams_max=20,
        drain_seconds=0,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BILLING_LISTEN", "50051"),
        ("BILLING_LISTEN", ":50051"),
        ("BILLING_LISTEN", "127.0.0.1"),
        ("BILLING_LISTEN", "127.0.0.1:"),
        ("BILLING_LISTEN", "127.0.0.1:65536"),
        ("BILLING_LISTEN", "127.0.0.1:-1"),
        ("BILLING_LISTEN", "127.0.0.1:50051/path"),
        ("BILLING_LISTEN", "::1:50051"),
        ("BILLING_LISTEN", "[::1"),
        ("BILLING_LISTEN", "[nonsense]:1"),
        ("BILLING_LISTEN", "user@127.0.0.1:50051"),
        ("BILLING_ALLOW_PLAINTEXT", "maybe"),
        ("BILLING_REFLECTION", "2"),
        ("BILLING_WORKERS", "0"),
        ("BILLING_WORKERS", "65"),
        ("BILLING_WORKERS", "two"),
        ("BILLING_LOG_LEVEL", "loud"),
        ("BILLING_GATEWAY_TARGET", "payments.example"),
        ("BILLING_GATEWAY_TLS", "perhaps"),
        ("BILLING_DATABASE_CONNECTIONS", "1"),
        ("BILLING_SMTP_TEST_CLOCKS", "perhaps"),
        ("BILLING_WEBHOOK_ALLOW_PRIVATE", "perhaps"),
        ("BILLING_SMTP_FROM", "shop"),
        ("BILLING_SMTP_FROM", "billing@shop.example, other@shop.example"),
        ("BILLING_METRICS_LISTEN", "9100"),
        ("BILLING_MAX_DEADLINE_SECONDS", "0"),
        ("BILLING_MAX_DEADLINE_SECONDS", "1.5"),
        ("BILLING_MAX_STREAMS", "0"),
        ("BILLING_DRAIN_SECONDS", "-1"),
    ],
)
def test_a_wrong_value_is_quoted_with_its_variable_and_the_rule(name: str, value: str) -> None:
    [problem] = problems_of({name: value})
    assert problem.startswith(f"{name}: {value.lower()!r} is not understood: write ")


MAIL = {"BILLING_SMTP_HOST": "mail.example", "BILLING_SMTP_FROM": "billing@shop.example"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Smtp(Address("mail.example", 587), "starttls", None, None, False)),
        ({"BILLING_SMTP_TLS": "tls"}, Smtp(Address("mail.example", 465), "tls", None, None, False)),
        ({"BILLING_SMTP_TLS": "none"}, Smtp(Address("mail.example", 25), "none", None, None, False)),
        ({"BILLING_SMTP_HOST": "localhost"}, Smtp(Address("localhost", 25), "none", None, None, False)),
    ],
)
def test_mail_goes_encrypted_beyond_this_machine(environment: dict[str, str], expected: Smtp) -> None:
    assert Config.from_environment(MAIL | environment).smtp == expected


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"BILLING_SMTP_FROM": ""}, "BILLING_SMTP_FROM"),
        ({"BILLING_SMTP_USER": "engine"}, "BILLING_SMTP_USER"),
        ({"BILLING_SMTP_PASSWORD": "secret"}, "BILLING_SMTP_USER"),
        ({"BILLING_SMTP_TLS": "ssl"}, "BILLING_SMTP_TLS"),
        ({"BILLING_SMTP_PORT": "0"}, "BILLING_SMTP_PORT"),
        (
            {"BILLING_SMTP_TLS": "none", "BILLING_SMTP_USER": "engine", "BILLING_SMTP_PASSWORD": "secret"},
            "BILLING_SMTP_TLS",
        ),
    ],
)
def test_mail_settings_that_cannot_be(environment: dict[str, str], name: str) -> None:
    [problem] = problems_of(MAIL | environment)
    assert problem.startswith(f"{name}: ")
    assert "secret" not in problem


def test_the_mail_password_is_never_shown() -> None:
    config = Config.from_environment(MAIL | {"BILLING_SMTP_USER": "engine", "BILLING_SMTP_PASSWORD": "secret"})
    assert "secret" not in repr(config) + "".join(config.describe())


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "host=h password=secret", "postgresql://[::1:secret"])
def test_a_wrong_database_url_is_never_quoted(url: str) -> None:
    [problem] = problems_of({"BILLING_DATABASE_URL": url})
    assert problem.startswith("BILLING_DATABASE_URL: ")
    assert "secret" not in problem


def test_all_problems_are_told_at_once() -> None:
    problems = problems_of({"BILLING_WORKERS": "x", "BILLING_LOG_LEVEL": "x", "BILLING_LISTEN": "x"})
    assert [problem.partition(":")[0] for problem in problems] == [
        "BILLING_LISTEN",
        "BILLING_WORKERS",
        "BILLING_LOG_LEVEL",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1"])
def test_plaintext_is_served_on_loopback(address: str) -> None:
    config = Config.from_environment({"BILLING_LISTEN": address})
    assert config.tls is None
    assert config.reflection
    assert str(config.listen) == address


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "billing.example:1"])
def test_plaintext_elsewhere_must_be_asked_for(address: str) -> None:
    [problem] = problems_of({"BILLING_LISTEN": address})
    assert problem.startswith("BILLING_LISTEN: ")
    assert "BILLING_ALLOW_PLAINTEXT" in problem
    config = Config.from_environment({"BILLING_LISTEN": address, "BILLING_ALLOW_PLAINTEXT": "true"})
    assert config.listen == Address(config.listen.host, 1)
    assert not config.reflection


def test_a_free_port_belongs_to_one_process() -> None:
    assert Config.from_environment({"BILLING_LISTEN": "127.0.0.1:0"}).listen.port == 0
    [problem] = problems_of({"BILLING_LISTEN": "127.0.0.1:0", "BILLING_WORKERS": "2"})
    assert problem.startswith("BILLING_LISTEN: ")


@pytest.mark.parametrize(
    ("given", "blamed"),
    [
        ("BILLING_TLS_CERT", "BILLING_TLS_KEY"),
        ("BILLING_TLS_KEY", "BILLING_TLS_CERT"),
        ("BILLING_TLS_CLIENT_CA", "BILLING_TLS_CLIENT_CA"),
    ],
)
def test_tls_files_need_each_other(tmp_path: Path, given: str, blamed: str) -> None:
    file = tmp_path / "one.pem"
    file.touch()
    [problem] = problems_of({given: str(file)})
    assert problem.startswith(f"{blamed}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    problems = problems_of({"BILLING_TLS_CERT": str(missing), "BILLING_TLS_KEY": str(tmp_path)})
    assert f"{missing} cannot be read" in problems[0]
    assert f"{tmp_path} cannot be read" in problems[1]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://engine:hush@one.example:1,two.example:2/billing",
        "postgres://engine@one.example/billing?password=hush",
        "postgresql://engine:hu@sh@one.example/billing",
    ],
)
def test_descriptions_hold_no_password(url: str) -> None:
    description = "\n".join(Config.from_environment({"BILLING_DATABASE_URL": url}).describe())
    assert "hush" not in description
    assert "hu@sh" not in description
    assert "://engine@one.example" in description


def test_help_lists_every_setting() -> None:
    text = help_text()
    assert all(setting.name in text and setting.meaning in text for setting in SETTINGS)


@pytest.mark.parametrize(
    ("settings", "tls"),
    [
        ({"BILLING_GATEWAY_TARGET": "127.0.0.1:9000"}, None),
        ({"BILLING_GATEWAY_TARGET": "127.0.0.1:9000", "BILLING_GATEWAY_TLS": "true"}, GatewayTls(None, None, None)),
        ({"BILLING_GATEWAY_TARGET": "payments.example:9000"}, GatewayTls(None, None, None)),
        ({"BILLING_GATEWAY_TARGET": "payments.example:9000", "BILLING_GATEWAY_TLS": "false"}, None),
        ({"BILLING_GATEWAY_TLS": "true"}, None),
    ],
)
def test_a_gateway_on_another_machine_is_asked_over_tls(settings: dict[str, str], tls: GatewayTls | None) -> None:
    assert Config.from_environment(settings).gateway_tls == tls


def test_the_gateway_is_shown_a_certificate_only_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "engine.pem").touch()
    [problem] = problems_of({"BILLING_GATEWAY_CERT": str(tmp_path / "engine.pem")})
    assert problem.startswith("BILLING_GATEWAY_CERT: ")


def test_each_worker_needs_a_port_for_its_metrics() -> None:
    [problem] = problems_of({"BILLING_METRICS_LISTEN": "127.0.0.1:65534", "BILLING_WORKERS": "3"})
    assert problem.startswith("BILLING_METRICS_LISTEN: ")
