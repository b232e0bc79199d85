"""Tables: values → lines of columns."""
