"""Late interaction: MaxSim, PLAID, and stored token states."""
