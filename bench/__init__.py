"""The benchmark: what orchestration costs, as ratios of alternating measurements. See docs/benchmark.md."""
