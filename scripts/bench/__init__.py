"""The parts of scripts/benchmark.py that need a model of full size."""
