"""Pure functions of arrays, each tested against an external oracle: no files, no settings, no hidden randomness."""
