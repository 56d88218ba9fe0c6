"""Work on a whole archive: labels for all rows, and groups of near-duplicates."""
