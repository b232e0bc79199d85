"""The abilities of a worker, a mixin a subject; BaseWorker combines them."""
