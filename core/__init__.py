"""The mathematics of generated negatives: schedules, denoisers, the reverse chain, samplers."""
