"""The pages that remove, and the audit trail."""
