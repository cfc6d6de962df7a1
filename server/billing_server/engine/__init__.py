"""Carrying out decisions: batches, time, payments, test clocks.

`door` is the one place where books change: a `session` decides on the books of one transaction, `transactions` runs
it until its outcome is known. `group_commit` gathers concurrent commands for it, `timekeeper` (by `errands`) and
`test_clocks` bring what is due, `cashier` asks the payment gateway in between. `engine` is what the API sees.
"""
