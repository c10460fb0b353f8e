"""What the terminal shows: escaped text and progress bars."""
