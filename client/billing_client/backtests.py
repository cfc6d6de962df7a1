"""Backtests of automations, as an iterator of what they find."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from billing.v1.automation_service_pb2 import BacktestAutomationRequest, BacktestAutomationResponse
from billing.v1.automation_service_pb2_grpc import AutomationServiceStub
from billing_client.errors import from_rpc_error


async def backtest(
    stub: AutomationServiceStub, request: BacktestAutomationRequest
) -> AsyncGenerator[BacktestAutomationResponse, None]:
    """Try an automation on what was recorded; see `BillingClient.backtest_automation`."""
    call = stub.BacktestAutomation(request)
    try:
        while isinstance(found := await call.read(), BacktestAutomationResponse):
            yield found
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()
