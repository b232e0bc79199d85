"""What a worker can do, by subject; BaseWorker puts it together."""
