"""The Hugging Face Hub: what may be pushed, and Markdown cards.

Imports `orchard.files`.
"""
