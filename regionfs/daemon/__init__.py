"""Processes: the one that serves a mount, its control socket and its runtime directory."""
