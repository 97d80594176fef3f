"""Tables in, columns out: sources, schema inference, splits, encoding, checks, data sets."""
