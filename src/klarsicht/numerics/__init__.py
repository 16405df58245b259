"""Pure functions of arrays, each tested against an oracle from outside: no files, no settings, no randomness."""
