"""The synthetic set on disk: Parquet shards that describe themselves, and a manifest that comes last.

Each shard carries the arguments of its class in its own schema metadata and names the lists of real images
that the class has seen, so an interrupted run needs nothing but the folder to go on, and the manifest is a
pure function of the shards and these lists. What the screens rejected lies in shards of its own: a row's
index says which shard it belongs to, its reason which split.
"""

from orchard.images.images import TRAIN
from orchard.shards.contents import LARGEST
from orchard.shards.files import (
    FLAGGED,
    NAME,
    NO_IMAGE,
    NOT_CHOSEN,
    ONE_COLOUR,
    REJECTED,
    SYNTHETIC_COLUMNS,
    Shard,
    columns,
    discarded_count,
    existing,
    is_synthetic,
    load,
    made_with,
    path_of,
    require_same,
    rows_of,
    store,
    upgrade,
    write,
)
from orchard.shards.header import KEY, ShardHeader
from orchard.shards.ledgers import hashes
from orchard.shards.manifest import (
    GENERATOR,
    Manifest,
    ledger,
    lower_count,
    manifest_of,
    read_manifest,
    requested_counts,
    require_complete,
    require_ledgers,
    require_unaltered,
    write_manifest,
)
from orchard.shards.opening import MANIFEST
from orchard.shards.reading import image, read, read_unscreened, rejected, rejections, rows
from orchard.shards.reviewed import Review, key_of, pending, reviewed

__all__ = [
    "FLAGGED",
    "GENERATOR",
    "KEY",
    "LARGEST",
    "MANIFEST",
    "NAME",
    "NOT_CHOSEN",
    "NO_IMAGE",
    "ONE_COLOUR",
    "REJECTED",
    "SYNTHETIC_COLUMNS",
    "TRAIN",
    "Manifest",
    "Review",
    "Shard",
    "ShardHeader",
    "columns",
    "discarded_count",
    "existing",
    "hashes",
    "image",
    "is_synthetic",
    "key_of",
    "ledger",
    "load",
    "lower_count",
    "made_with",
    "manifest_of",
    "path_of",
    "pending",
    "read",
    "read_manifest",
    "read_unscreened",
    "rejected",
    "rejections",
    "requested_counts",
    "require_complete",
    "require_ledgers",
    "require_same",
    "require_unaltered",
    "reviewed",
    "rows",
    "rows_of",
    "store",
    "upgrade",
    "write",
    "write_manifest",
]
