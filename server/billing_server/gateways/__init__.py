"""Payment gateways behind one port: the built-in test gateway, and the user's own service.

`port` is what the engine knows. `test` is the gateway that moves no money, with its tokens in `tokens`, its
faults in `faults` and its group commit in `coalescing`; `remote` speaks to a `billing.gateway.v1` service.
"""
