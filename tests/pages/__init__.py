"""The commands in the pages: found, checked against the real command line, and run on small data."""
