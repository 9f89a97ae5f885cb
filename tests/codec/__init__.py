"""Answers to bytes and back."""
