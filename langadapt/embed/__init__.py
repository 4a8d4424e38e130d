"""Rows for new tokens: one method a file; row map; assembling input table and head."""
