"""What applications hold: the client, its options, sending in bulk, the check of a server."""
