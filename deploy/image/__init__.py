"""The two images built and run without Docker: `make image-test`."""
