"""The published service config: complete, valid for gRPC, and printed by the command line."""

from __future__ import annotations

import json

import grpc
from typer.testing import CliRunner

from billing_client.channel import service_config
from billing_client.command_line.main import app
from billing_client.methods import READING_METHODS, SERVICES


def test_the_command_line_prints_it() -> None:
    assert json.loads(CliRunner().invoke(app, ["service-config"]).stdout) == service_config()


def test_all_services_are_known() -> None:
    assert len(SERVICES) == 12
    assert "/billing.v1.EventService/StreamEvents" in READING_METHODS
    assert "/billing.v1.InvoiceService/PayInvoice" not in READING_METHODS


def test_no_method_that_changes_something_is_retried_by_grpc() -> None:
    named = {
        f"/{entry['service']}/{entry['method']}"
        for config in service_config()["methodConfig"]
        for entry in config["name"]
    }
    assert named < READING_METHODS


async def test_grpc_takes_it() -> None:
    options = [("grpc.service_config", json.dumps(service_config()))]
    async with grpc.aio.insecure_channel("127.0.0.1:1", options=options) as channel:
        assert channel.get_state(try_to_connect=False) is grpc.ChannelConnectivity.IDLE
