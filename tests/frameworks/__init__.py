"""The recipes of docs/how-to/frameworks, with the real libraries (`make frameworks`)."""
