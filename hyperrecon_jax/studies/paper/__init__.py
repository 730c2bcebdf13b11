"""The whole paper as a study: its claims, the criteria by which they hold, and the report."""
