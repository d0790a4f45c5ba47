"""Dashboards as code, and their pictures.

panels    what a panel is               boards    the three dashboards
generate  panels -> Grafana's JSON      reading   Grafana's JSON -> queries
pictures  the JSON and a live Prometheus -> PNG, each panel by `drawing`
"""
