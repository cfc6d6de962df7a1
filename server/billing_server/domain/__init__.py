"""Decisions only: what the engine does, without doing it.

Nothing here performs I/O, reads a clock, draws randomness or knows protobuf. `decide` takes a customer's
book, a command and the moment, and returns a decision; `advance` does the same for the passing of time.
"""
