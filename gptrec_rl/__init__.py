"""gptrec-rl: sequential recommenders that write whole lists, aligned with goals beyond accuracy."""

__version__ = "0.1.0"
