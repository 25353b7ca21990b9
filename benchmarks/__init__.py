"""How fast it is: each figure compares two ways of doing the same work, in turn, on the same cores (`make bench`)."""
