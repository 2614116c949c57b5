"""The benchmark: what orchestration costs, as ratios of measurements that were made in turn. See docs/benchmark.md."""
