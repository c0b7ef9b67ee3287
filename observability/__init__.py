"""What happened: records turned into spans, metrics and logs."""
