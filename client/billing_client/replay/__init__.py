"""The replay of the telco churn data: real subscribers, billed month by month on a test clock, through the RPCs.

`rows` reads the file, `plan` decides what happens when (both pure), `world` finds what is already there, `run`
does what is missing, and `summary` holds the outcome against the file.
"""
