"""Linear algebra for the spectral methods: deterministic, and in float32 where that is accurate enough."""
