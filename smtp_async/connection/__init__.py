"""One connection, one task: opening it, its channel, its jobs and their deliveries."""
