"""The fleet of stage 2: what its processes do and how they are kept alive."""
