"""Dashboards and alerts as code, and their generated JSON."""
