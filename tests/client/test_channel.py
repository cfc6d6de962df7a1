"""The published service config: complete, valid for gRPC, and the same as in the file."""

from __future__ import annotations

import json
from pathlib import Path

import grpc

import billing_client
from billing_client.channel import service_config, service_config_text
from billing_client.methods import READING_METHODS, SERVICES


def test_the_file_is_what_the_protos_say() -> None:
    file = Path(billing_client.__file__).with_name("service_config.json")
    assert file.read_text("utf-8") == service_config_text()


def test_all_services_are_known() -> None:
    assert len(SERVICES) == 9
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
