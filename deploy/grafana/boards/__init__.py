"""The dashboards. Every metric in them is in docs/api.md, every alert in docs/runbook.md."""

from deploy.grafana.boards import model, service, trainer

BOARDS = (service.BOARD, model.BOARD, trainer.BOARD)
