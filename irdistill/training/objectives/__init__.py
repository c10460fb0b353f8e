"""From a batch to a loss: encoding, scores, penalties and parameters of the loss."""
