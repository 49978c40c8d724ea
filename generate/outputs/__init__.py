"""The output folder: existing shards, contact sheets, dataset card, manifest."""
