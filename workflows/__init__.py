"""Processes written with the engine, one folder each."""
