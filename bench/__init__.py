"""How fast the engine is, beside what its machine could do at best. `make bench` runs all of it."""
