"""Mutation of the package: whether the tests notice when a line does something else.

`operators` makes the mutants of a file from its syntax tree, and ``python -m tests.mutants`` runs the tests of a sample
of them. `survivors.md` tells what was made of each mutant that no test noticed.
"""
