"""Command line: one module per wing; an error becomes one line and an exit code."""
