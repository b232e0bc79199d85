"""Programs of other frameworks on pbus' bus; nothing else in pbus imports one of them."""
