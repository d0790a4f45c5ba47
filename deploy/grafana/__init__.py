"""Dashboards as code, and their pictures.

panels    what a panel is               boards    the three dashboards
generate  panels -> Grafana's JSON      pictures  Grafana's JSON + a Prometheus -> PNG
"""
