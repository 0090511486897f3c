"""What is on disk: written whole, locked, told apart by its bytes."""
