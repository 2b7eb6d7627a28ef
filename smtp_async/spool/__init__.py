"""Mail at rest: `spool` is the contract, `directory` keeps it on files, `record` is their form."""
