"""Adapters -> labelled synthetic shards."""
