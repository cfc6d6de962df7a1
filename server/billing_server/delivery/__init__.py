"""Getting events out: streams from any position. Nothing here decides anything about billing."""
