"""What the training stages do once torch is wanted."""
