"""The numbers of all public cases, and what becomes of those that are no row of the tables."""
