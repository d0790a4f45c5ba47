"""Co-learning of encoder and diffusion model, evaluation, and publishing."""
