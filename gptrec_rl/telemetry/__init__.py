"""What a fleet says of itself, and what is read from it: names, stream, records, history, faults and their remedies."""
