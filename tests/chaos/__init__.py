"""Chaos: real processes under load are killed, cut off and made slow; then everything is audited."""
