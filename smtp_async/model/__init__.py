"""Values that every layer uses: addresses, replies, receipts, content. No I/O."""
