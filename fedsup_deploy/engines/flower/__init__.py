"""Jobs carried by Flower: simulated with Ray on this machine, or to devices over a network.

The only package that imports flwr, and only in the functions that need it: what travels is bytes that we encode.
"""
