"""The parts of scripts/benchmark.py that need a module of their own."""
