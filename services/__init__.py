"""One file per process of the fleet: wiring only."""
