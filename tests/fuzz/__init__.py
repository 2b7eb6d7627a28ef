"""Long runs that the test suite does not make: `make fuzz`, or `python -m tests.fuzz`."""
