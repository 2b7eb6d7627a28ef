"""Conversion of messages, whole messages as bytes, and streams to `Mail`."""
