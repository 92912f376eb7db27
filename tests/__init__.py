"""The tests mirror the packages; every test states its rule in a sentence."""
