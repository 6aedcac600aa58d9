"""The methods, kinds that the configuration chooses by name. Read admm.py first."""
