"""The pure core: what a workflow is and how a run folds over its log. No clock, no randomness, no I/O."""
