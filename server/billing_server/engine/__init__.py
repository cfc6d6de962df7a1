"""Carrying out decisions: batches, time, payments, test clocks.

`door` is the one place where books change. `group_commit` gathers concurrent commands for it, `timekeeper` and
`test_clocks` bring what is due, `cashier` asks the payment gateway in between. `engine` is what the API sees.
"""
