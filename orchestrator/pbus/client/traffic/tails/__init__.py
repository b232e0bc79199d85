"""What is made of messages that pass: pairs, values, events of other forms, one order with logs."""
