"""Where a real set comes from: folders, Parquet, the Hub, the drawn demo.

Imports `orchard.images` and `orchard.files`.
"""
