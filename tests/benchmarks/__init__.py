"""What runs often, timed: `make bench`."""
