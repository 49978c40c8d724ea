"""Where a real set comes from: folders, Parquet, the Hub, the rendered demo."""
