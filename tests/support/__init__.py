"""What the tests share. No test is in here."""
