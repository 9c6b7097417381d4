"""When and where it is computed: requests, scheduler, cache slots, runner and engine.

Imports `model` and no other package of Talipot.
"""
