"""Direct sockets: processes of one host hand messages to each other without the broker."""
