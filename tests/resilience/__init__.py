"""What the failure of a tier does."""
