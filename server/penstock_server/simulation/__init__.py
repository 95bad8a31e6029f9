"""The production scheduler on a virtual clock: a model of lanes and arrivals, peers' policies, checkers."""
