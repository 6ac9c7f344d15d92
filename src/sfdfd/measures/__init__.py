"""What we train on (losses), what we report (metrics), and whether a stack carries a signal (diagnosis)."""
