"""Drawing, printing and following in threads of their own: no terminal blocks a supervisor."""
