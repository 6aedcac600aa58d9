"""The pisa-ray command: configuration files, training, evaluation and report pages."""
