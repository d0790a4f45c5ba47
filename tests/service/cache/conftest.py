from tests.service.redis_server import proxy, redis_server

__all__ = ["proxy", "redis_server"]
