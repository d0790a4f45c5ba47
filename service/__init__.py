"""The FastAPI application that serves transition-point negatives."""
