"""Values that every layer speaks: addresses, replies, receipts, content. No I/O."""
