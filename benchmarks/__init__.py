"""Benchmarks: one file per question, each answered by ratios against rivals measured in the same run.

``python -m benchmarks`` runs them all, ``python -m benchmarks throughput --quick`` one of them with fewer rounds. Every
sender is a process of its own that gets the same bytes (`sender.py`), rounds are interleaved (ours, rival, ours,
rival), and what counts is the median of the ratios of each round. Rates suffer from whatever else the machine does;
CPU time per message hardly does: CPU ratios decide.
"""
