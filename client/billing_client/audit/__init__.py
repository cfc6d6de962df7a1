"""An independent check of an account: does everything that the RPCs tell add up?

It does its own arithmetic and trusts nothing but the contract. `book` holds what belongs to one customer, the
`*_checks` modules find what is off in it (each check is a function with a name), `gathering` reads the account
into a spool on disk, and `inspection` puts them together with a second look at what seems wrong, because an
account that is at work changes while it is read.
"""
