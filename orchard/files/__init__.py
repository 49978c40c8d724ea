"""Atomic writes, locks, storage by URL, and parsers of untrusted files."""
