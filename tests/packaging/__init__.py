"""The wheel and the sdist, and what they need."""
