"""A payment gateway of one's own: a small `billing.gateway.v1.PaymentGateway` to start from.

`python -m examples.payment_gateway` serves it; `python -m examples.payment_gateway.conformance HOST:PORT`
checks any implementation. See the README beside this file.
"""
