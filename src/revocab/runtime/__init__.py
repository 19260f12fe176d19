"""What every step leans on: files that are never half written, the artifact cache, seeds, progress, hardware facts."""
