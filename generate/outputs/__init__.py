"""The output folder: shards that are there, contact sheets, dataset card, manifest."""
