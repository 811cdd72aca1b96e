"""What a row's ``generate_map`` points to: models that are asked in another way than the row's own."""
