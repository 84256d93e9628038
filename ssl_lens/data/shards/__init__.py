"""Sets of tar shards, streamed: `shard_set` is what others import."""
