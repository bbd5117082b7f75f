"""Step 4: which mode serves a composite file and why, and what the kernel modes need."""
