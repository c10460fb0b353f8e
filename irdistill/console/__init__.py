"""What the terminal shows: text without control characters, and progress bars."""
