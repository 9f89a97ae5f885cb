"""Looking up and saving, through the tiers."""
