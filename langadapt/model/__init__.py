"""Load, save, tensors by lazy read, tables (tied, padded, bias), token table by canonical bytes."""
