"""Late interaction: MaxSim search, PLAID, and stored token states."""
