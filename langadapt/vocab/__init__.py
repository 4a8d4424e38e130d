"""Tokenizer -> tokenizer: guard, one file per tokenizer family, checks, metrics."""
