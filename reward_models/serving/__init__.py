"""Choosing, online: a pure ranker over one immutable snapshot, a decision log, and the calls that use them."""
