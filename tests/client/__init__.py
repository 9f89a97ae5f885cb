"""instructor's clients, wrapped."""
