"""The search for garbage, for processes that have loaded what they need and free the rest by its last reference."""

import gc


def spare() -> None:
    """What is loaded by now stays, and is not looked at again; the rest is, but seldom.

    Looking for cycles among all of it took a third of the worker's time, and a tenth of a decision's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
