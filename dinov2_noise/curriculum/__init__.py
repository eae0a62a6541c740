"""A run in stages: config → stages, a sampler that carries the stage with each index, and staged schedules."""
