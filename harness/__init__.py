"""The engine: suites, data, training, inference, measurement, store and the command line."""
