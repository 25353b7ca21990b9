"""Random faults against a whole fleet, and what has to hold after them: `make chaos`, and the tests of survival."""
