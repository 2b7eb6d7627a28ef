"""Which job goes to which connection, and when to dial another one."""
