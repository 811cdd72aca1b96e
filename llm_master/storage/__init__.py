"""What is remembered beside and beyond a process: shared limits, key states."""
