"""Pure functions from values to what rich draws; no I/O, no clock."""
