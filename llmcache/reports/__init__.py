"""What the calls saved and cost, what is stored, and how the tiers are: to be read."""
