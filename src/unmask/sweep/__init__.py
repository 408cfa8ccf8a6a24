"""Sweeps: every arm a process of its own, from frozen code, written down in a ledger, gone on with after any end."""
