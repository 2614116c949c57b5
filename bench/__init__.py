"""The benchmark: what orchestration costs, as ratios of measurements that were made in turn. docs/benchmark.md tells the rest."""
