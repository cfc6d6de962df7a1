"""The billing engine: asyncio gRPC services over PostgreSQL.

Imports run downward only: `api` and `delivery` use `engine`, which uses `gateways`, `store` and `wire`, which
use `domain`. `bootstrap` is the only place that wires them together.
"""
