"""A spool that is a directory of files, shared by the processes of one machine."""
