"""The command line: one module a wing; an error becomes one line and an exit code."""
