"""What a caller may hand in, made a `Mail`: messages, whole messages as bytes, streams."""
