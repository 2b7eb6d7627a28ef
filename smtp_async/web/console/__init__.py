"""The queue console: a page that shows what a spool holds and what its processor does."""
