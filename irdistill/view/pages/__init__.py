"""The pages of `irdistill view`, a module each."""
